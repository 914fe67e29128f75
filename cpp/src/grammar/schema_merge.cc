#include "grammar/schema_merge.h"

#include <algorithm>

#include "base/check.h"
#include "base/json.h"

namespace octavo {
namespace {

constexpr int kMaxDepth = 64;
// A schema that holds itself together with something can grow without end.
constexpr int64_t kMaxWork = 200'000;

int64_t num_parts(const Schema& schema) {
  int64_t count = 1;
  if (!schema.is_structured()) return count;
  for (const Schema& part : schema) count += num_parts(part);
  return count;
}

constexpr std::string_view kTypes[] = {"null",   "boolean", "integer", "number",
                                       "string", "array",   "object"};

bool contains(const std::vector<std::string_view>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

bool are_common(const std::vector<std::string_view>& a, const std::vector<std::string_view>& b) {
  return std::any_of(a.begin(), a.end(), [&](std::string_view word) { return contains(b, word); });
}

// As a list of names: "number" stands for integers too.
std::vector<std::string_view> types_of(const Schema& type) {
  std::vector<std::string_view> result;
  const Schema list = type.is_array() ? type : Schema::array({type});
  for (const Schema& name : list) {
    for (const std::string_view known : kTypes) {
      if (name == known) result.push_back(known);
    }
  }
  if (contains(result, "number") && !contains(result, "integer")) result.push_back("integer");
  return result;
}

Schema both_types(const Schema& a, const Schema& b, const std::string& path) {
  const auto second = types_of(b);
  Schema result = Schema::array();
  for (const std::string_view type : types_of(a)) {
    if (contains(second, type)) result.push_back(type);
  }
  if (result.empty()) refuse_schema(path, "no type is possible");
  return result;
}

Schema both_enums(const Schema& a, const Schema& b, const std::string& path) {
  Schema result = Schema::array();
  for (const Schema& value : a) {
    if (contains_value(b, value)) result.push_back(value);
  }
  if (result.empty()) refuse_schema(path, "no value is possible");
  return result;
}

Schema both_required(const Schema& a, const Schema& b) {
  Schema result = a;
  for (const Schema& name : b) {
    if (!contains_value(result, name)) result.push_back(name);
  }
  return result;
}

Schema both_properties(const Schema& a, const Schema& b) {
  Schema result = a;
  for (const auto& [name, schema] : b.items()) {
    const auto found = result.find(name);
    if (found == result.end()) {
      result[name] = schema;
    } else if (*found != schema) {
      *found = Schema{{"allOf", Schema::array({*found, schema})}};
    }
  }
  return result;
}

bool is_lower_bound(std::string_view key) {
  return key == "minimum" || key == "exclusiveMinimum" || key == "minLength" || key == "minItems" ||
         key == "minProperties";
}

bool is_upper_bound(std::string_view key) {
  return key == "maximum" || key == "exclusiveMaximum" || key == "maxLength" || key == "maxItems" ||
         key == "maxProperties";
}

Schema both_values(const std::string& key, const Schema& a, const Schema& b,
                   const std::string& path) {
  if (a == b) return a;
  if (key == "type") return both_types(a, b, path);
  if (key == "enum") return both_enums(a, b, path);
  if (key == "required") return both_required(a, b);
  if (key == "properties") return both_properties(a, b);
  if (key == "uniqueItems") return true;
  if (is_lower_bound(key)) return a.get<double>() < b.get<double>() ? b : a;
  if (is_upper_bound(key)) return a.get<double>() < b.get<double>() ? a : b;
  refuse_schema(path, str_cat("\"", key, "\" holds twice (allOf), which is not supported"));
}

// Keywords that speak of the properties which `properties` beside them does not name.
bool speaks_of_others(const Schema& schema) {
  return schema.contains("patternProperties") || schema.contains("additionalProperties") ||
         schema.contains("unevaluatedProperties");
}

bool speaks_of_other_items(const Schema& schema) {
  return schema.contains("items") || schema.contains("unevaluatedItems") ||
         schema.contains("prefixItems");
}

std::vector<std::string> names_of(const Schema& schema, const char* keyword) {
  std::vector<std::string> names;
  if (const auto found = schema.find(keyword); found != schema.end()) {
    for (const auto& [name, value] : found->items()) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Whether what both say of other properties is about the same ones.
bool speak_of_same_others(const Schema& a, const Schema& b) {
  if (!speaks_of_others(a) && !speaks_of_others(b)) return true;
  return names_of(a, "properties") == names_of(b, "properties") &&
         names_of(a, "patternProperties") == names_of(b, "patternProperties");
}

bool requires_name(const Schema& schema, const std::string& name) {
  return schema.contains("required") && contains_value(schema["required"], name);
}

// The types of the texts that SchemaRewriter writes for a flat schema: without "type", those that
// its keywords are about.
std::vector<std::string_view> written_types(const Schema& schema) {
  std::vector<std::string_view> result;
  if (schema.is_object() && !schema.contains("type") && !schema.contains("enum")) {
    for (const auto& [key, value] : schema.items()) {
      const std::string_view type = key == "format" ? "string" : type_of_keyword(key);
      if (!type.empty() && !contains(result, type)) result.push_back(type);
    }
    if (contains(result, "number")) result.push_back("integer");
  }
  return result.empty() ? possible_types(schema) : result;
}

bool is_object_only(const Schema& schema) {
  const auto types = written_types(schema);
  return types.size() == 1 && types[0] == "object" && !schema.contains("enum");
}

}  // namespace

bool contains_value(const Schema& list, const Schema& value) {
  if (!value.is_structured()) return std::find(list.begin(), list.end(), value) != list.end();
  const Json unordered(value);  // equal objects may name their properties in another order
  return std::any_of(list.begin(), list.end(), [&](const Schema& other) {
    return other.is_structured() && Json(other) == unordered;
  });
}

std::vector<std::string_view> possible_types(const Schema& schema) {
  if (schema.is_object() && schema.contains("enum")) {
    std::vector<std::string_view> result;
    for (const Schema& value : schema["enum"]) result.push_back(type_of(value));
    return result;
  }
  if (schema.is_object() && schema.contains("type")) return types_of(schema["type"]);
  return {std::begin(kTypes), std::end(kTypes)};
}

Schema SchemaMerger::flatten(const Schema& schema, const std::string& path) const {
  return flatten(schema, path, 0);
}

Schema SchemaMerger::resolved(const Schema& schema, const std::string& path) const {
  Schema flat = flatten(schema, path, 0);
  for (int depth = 0; flat.is_object() && flat.contains("$ref"); ++depth) {
    if (depth > kMaxDepth) refuse_schema(path, "$ref leads back to itself");
    const SchemaSource::Part part = source_.resolve(flat["$ref"], path);
    flat = flatten(*part.schema, part.path, depth);
  }
  return flat;
}

Schema SchemaMerger::flatten(const Schema& schema, const std::string& path, int depth) const {
  if (depth > kMaxDepth) refuse_schema(path, "$ref leads back to itself");
  if (schema.is_boolean()) return schema;
  if (!schema.is_object()) refuse_schema(path, "a schema is an object or a boolean");
  check_keywords(schema, path);
  Schema result = constraints_of(schema);
  if (result.contains("const")) {
    Schema only = Schema{{"enum", Schema::array({result["const"]})}};
    result.erase("const");
    result = both(result, only, path);
  }
  if (result.contains("$ref") && result.size() > 1) {
    const SchemaSource::Part part = source_.resolve(result["$ref"], path);
    result.erase("$ref");
    result = both(result, flatten(*part.schema, part.path, depth + 1), path);
  }
  if (!result.is_object() || !result.contains("allOf")) return result;
  const Schema parts = result["allOf"];
  result.erase("allOf");
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string where = child_path(child_path(path, "allOf"), std::to_string(i));
    Schema part = flatten(parts[i], where, depth + 1);
    if (part.is_object() && part.contains("$ref") && !(result.empty() && parts.size() == 1)) {
      const SchemaSource::Part target = source_.resolve(part["$ref"], where);
      part = flatten(*target.schema, target.path, depth + 1);
    }
    result = both(result, part, path);
  }
  return result;
}

Schema SchemaMerger::both(const Schema& a, const Schema& b, const std::string& path) const {
  work_ += num_parts(a) + num_parts(b);
  if (work_ > kMaxWork) refuse_schema(path, "\"allOf\" or \"$ref\" makes the schema too large");
  if (a == false || b == false) refuse_schema(path, "no value is possible");
  if (b == true || b.empty()) return a;
  if (a == true || a.empty()) return b;
  if ((a.contains("$ref") || b.contains("$ref")) && a != b) {
    refuse_schema(path, "\"$ref\" together with other keywords is not supported here");
  }
  if (!speak_of_same_others(a, b)) {
    refuse_schema(path,
                  "\"additionalProperties\" or the like in one part of allOf and "
                  "\"properties\" in another is not supported");
  }
  if (speaks_of_other_items(a) && speaks_of_other_items(b) && a != b) {
    refuse_schema(path, "\"items\" or the like in two parts of allOf is not supported");
  }
  Schema result = a;
  for (const auto& [key, value] : b.items()) {
    const auto found = result.find(key);
    if (found == result.end()) {
      result[key] = value;
    } else {
      *found = both_values(key, Schema(*found), value, path);
    }
  }
  return result;
}

// Whether no value of the object schema has the property.
bool SchemaMerger::is_closed(const Schema& schema, const std::string& name) const {
  if (schema.contains("properties") && schema["properties"].contains(name)) {
    return schema["properties"][name] == false;
  }
  if (schema.contains("patternProperties") || !schema.contains("properties")) return false;
  const auto found = schema.find("additionalProperties");
  return found == schema.end() ? !additional_properties_ : *found == false;
}

bool SchemaMerger::disjoint(const Schema& a, const Schema& b, const std::string& path) const {
  if (a.is_boolean() || b.is_boolean()) return a == false || b == false;
  if (!are_common(written_types(a), possible_types(b)) &&
      !are_common(written_types(b), possible_types(a))) {
    return true;
  }
  if (a.contains("enum") && b.contains("enum")) {
    return std::none_of(a["enum"].begin(), a["enum"].end(),
                        [&](const Schema& value) { return contains_value(b["enum"], value); });
  }
  if (!is_object_only(a) || !is_object_only(b)) return false;
  const auto decides = [&](const Schema& x, const Schema& y, const std::string& name) {
    if (!requires_name(x, name)) return false;
    if (is_closed(y, name)) return true;
    if (!requires_name(y, name) || !x.contains("properties") || !y.contains("properties")) {
      return false;
    }
    const Schema &p = x["properties"], &q = y["properties"];
    if (!p.contains(name) || !q.contains(name)) return false;
    const Schema left = resolved(p[name], path), right = resolved(q[name], path);
    if (!left.is_object() || !right.is_object()) return false;
    return left.contains("enum") && right.contains("enum") && disjoint(left, right, path);
  };
  const auto any_decides = [&](const Schema& x, const Schema& y) {
    return x.contains("required") &&
           std::any_of(x["required"].begin(), x["required"].end(),
                       [&](const Schema& name) { return decides(x, y, name.get<std::string>()); });
  };
  return any_decides(a, b) || any_decides(b, a);
}

}  // namespace octavo
