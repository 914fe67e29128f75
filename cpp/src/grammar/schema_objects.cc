// How SchemaRewriter writes objects.
#include <algorithm>

#include "base/check.h"
#include "base/printable.h"
#include "grammar/code_set.h"
#include "grammar/regex_expression.h"
#include "grammar/schema_rewriter.h"
#include "grammar/text_check.h"

namespace octavo {
namespace {

constexpr size_t kMaxProperties = 1000;  // that an object names
constexpr size_t kMaxCounted = 64;       // where their number is bounded too
constexpr size_t kMaxNameLength = 200;

void check_name(const std::string& name, const std::string& path) {
  if (name.size() > kMaxNameLength) {
    refuse_schema(path, str_cat("a property's name has more than ", kMaxNameLength, " bytes"));
  }
  const CodeSet plain = CodeSet::json_plain();
  for (std::string_view rest = name; !rest.empty();) {
    if (!plain.contains(take_code_point(rest))) {
      refuse_schema(path, "a property's name with a character that JSON escapes is not supported");
    }
  }
}

}  // namespace

Schema SchemaRewriter::object(const Schema& schema, const Place& place) {
  Schema others_schema = others(schema, "additionalProperties", "unevaluatedProperties");
  const bool said =
      schema.contains("additionalProperties") || schema.contains("unevaluatedProperties");
  const bool names = schema.contains("properties") || schema.contains("required");
  if (!said && !additional_properties_ && names) others_schema = false;
  if (schema.contains("patternProperties")) return pattern_object(schema, place);
  if (schema.contains("propertyNames")) return key_object(schema, others_schema, place);
  if (names) return named_object(schema, others_schema, place);
  Schema result = {{"type", "object"}};
  count_properties(schema, others_schema != false, result, place);
  if (others_schema == false) {
    if (result.contains("minProperties")) refuse_schema(place.path, "no property is possible");
    result["additionalProperties"] = false;
  } else if (others_schema != true || result.size() > 1) {
    result["additionalProperties"] = any(others_schema, place.inside("additionalProperties"));
  }
  return result;
}

// The library gives equal rules to objects that differ only in properties named like annotations
// ("title"): "$octavo" keeps them apart.
Schema SchemaRewriter::named_object(const Schema& schema, const Schema& others_schema,
                                    const Place& place) {
  const Schema properties = schema.value("properties", Schema::object());
  const Schema required = schema.value("required", Schema::array());
  Schema written = Schema::object(), needed = Schema::array();
  std::vector<std::string> names;
  const auto add = [&](const std::string& name, const Schema& part, const Place& where) {
    check_name(name, where.path);
    names.push_back(name);
    if (part != false) written[name] = any(part, where);
  };
  for (const auto& [name, part] : properties.items()) {
    add(name, part, place.inside("properties").inside(name));
  }
  for (const Schema& item : required) {
    const auto name = item.get<std::string>();
    if (!properties.contains(name) && !written.contains(name)) {
      add(name, others_schema, place.inside("required"));
    }
    if (!written.contains(name)) {
      refuse_schema(child_path(place.path, "required"),
                    str_cat("\"", printable(name), "\" is required and not possible"));
    }
    if (!contains_value(needed, item)) needed.push_back(item);
  }
  if (names.size() > kMaxProperties) {
    refuse_schema(place.path, str_cat("more than ", kMaxProperties, " properties"));
  }
  Schema result = {{"type", "object"}, {"$octavo", num_nodes_}, {"properties", std::move(written)}};
  if (!needed.empty()) result["required"] = std::move(needed);
  count_properties(schema, others_schema != false, result, place);
  if (others_schema == false) {
    result["additionalProperties"] = false;
    if (result["properties"].empty()) result.erase("properties");
    return result;
  }
  result["additionalProperties"] = any(others_schema, place.inside("additionalProperties"));
  const std::string keys =
      other_words_expression(names, str_cat("json: ", printable(place.path)), result_.rules);
  result["propertyNames"] = {{"type", "string"}, {"pattern", pattern(keys)}};
  if (result["properties"].empty()) result.erase("properties");
  return result;
}

// Keys that no pattern matches would be valid too; the grammar has none of them.
Schema SchemaRewriter::pattern_object(const Schema& schema, const Place& place) {
  const Place list = place.inside("patternProperties");
  const Schema& patterns = schema["patternProperties"];
  for (const char* other : {"properties", "required", "propertyNames"}) {
    if (!schema.contains(other)) continue;
    refuse_schema(place.path,
                  str_cat("\"patternProperties\" beside \"", other, "\" is not supported"));
  }
  if (patterns.size() != 1)
    refuse_schema(list.path, "more or less than one pattern is not supported");
  const Place here = list.inside(patterns.begin().key());
  Schema result = {{"type", "object"}};
  const std::string keys = regex_expression(patterns.begin().key(), RegexText::kJsonString,
                                            str_cat("json: ", printable(here.path)), result_.rules);
  result["patternProperties"] = {{pattern(keys), any(patterns.begin().value(), here)}};
  result["additionalProperties"] = false;
  count_properties(schema, true, result, place);
  return result;
}

Schema SchemaRewriter::key_object(const Schema& schema, const Schema& others_schema,
                                  const Place& place) {
  for (const char* other : {"properties", "required"}) {
    if (!schema.contains(other)) continue;
    refuse_schema(place.path, str_cat("\"propertyNames\" beside \"", other, "\" is not supported"));
  }
  if (others_schema == false)
    refuse_schema(place.path, "\"propertyNames\", and no property is possible");
  const Place here = place.inside("propertyNames");
  Schema keys = merger_.resolved(schema["propertyNames"], here.path);
  if (keys.is_boolean()) refuse_schema(here.path, "expected a schema of strings");
  keys = flat(merger_.both(keys, Schema{{"type", "string"}}, here.path), here);
  if (keys.contains("anyOf")) refuse_schema(here.path, "alternatives are not supported here");
  Schema result = {{"type", "object"}, {"propertyNames", std::move(keys)}};
  result["additionalProperties"] = any(others_schema, place.inside("additionalProperties"));
  count_properties(schema, true, result, place);
  return result;
}

// A text may write a key twice, which counts once: where that is possible, a minimum of more than
// one is not enforced.
void SchemaRewriter::count_properties(const Schema& schema, bool may_repeat, Schema& result,
                                      const Place& place) {
  const size_t num_required = result.contains("required") ? result["required"].size() : 0;
  const size_t num_named = result.contains("properties") ? result["properties"].size() : 0;
  const double min = schema.contains("minProperties") ? schema["minProperties"].get<double>() : 0;
  if (min > static_cast<double>(num_required)) {
    if (may_repeat && min > 1) {
      refuse_schema(child_path(place.path, "minProperties"),
                    "more than 1 is supported only where \"additionalProperties\" is false");
    }
    if (!may_repeat && min > static_cast<double>(num_named)) {
      refuse_schema(place.path, "minProperties is above the number of properties");
    }
    result["minProperties"] = static_cast<int64_t>(min);
  }
  if (schema.contains("maxProperties")) {
    const double max = schema["maxProperties"].get<double>();
    if (max < min || max < static_cast<double>(num_required)) {
      refuse_schema(place.path, "maxProperties is below the number of required properties");
    }
    if (may_repeat || max < static_cast<double>(num_named)) {
      result["maxProperties"] = static_cast<int64_t>(std::min(max, 1e6));
    }
  }
  const bool counted = result.contains("minProperties") || result.contains("maxProperties");
  if (counted && num_named > kMaxCounted) {
    refuse_schema(place.path, str_cat("minProperties and maxProperties are supported with up to ",
                                      kMaxCounted, " properties"));
  }
}

}  // namespace octavo
