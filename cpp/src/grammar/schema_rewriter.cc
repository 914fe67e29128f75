#include "grammar/schema_rewriter.h"

#include <algorithm>

#include "base/check.h"
#include "base/json.h"
#include "base/printable.h"

namespace octavo {
namespace {

constexpr int kMaxDepth = 128;
constexpr int64_t kMaxNodes = 10'000;

std::string definition_name(size_t number) { return str_cat('d', number); }

bool is_finite(const Schema& written, const std::set<std::string>& finite);

bool object_is_finite(const Schema& written, const std::set<std::string>& finite) {
  if (written.contains("required")) {
    for (const Schema& name : written["required"]) {
      if (!is_finite(written["properties"][name.get<std::string>()], finite)) return false;
    }
  }
  if (written.value("minProperties", 0) == 0 || written.contains("required")) return true;
  bool some = false;  // of the properties it may have
  if (written.contains("properties")) {
    for (const auto& [name, part] : written["properties"].items()) some |= is_finite(part, finite);
  }
  if (written.contains("patternProperties")) {
    for (const auto& [name, part] : written["patternProperties"].items()) {
      some |= is_finite(part, finite);
    }
    return some;
  }
  const Schema others = written.value("additionalProperties", Schema(true));
  return some || (others != false && is_finite(others, finite));
}

bool array_is_finite(const Schema& written, const std::set<std::string>& finite) {
  const auto needed = written.value("minItems", int64_t{0});
  const Schema prefix = written.value("prefixItems", Schema::array());
  for (size_t i = 0; i < prefix.size() && static_cast<int64_t>(i) < needed; ++i) {
    if (!is_finite(prefix[i], finite)) return false;
  }
  return needed <= static_cast<int64_t>(prefix.size()) ||
         is_finite(written.value("items", Schema(true)), finite);
}

bool is_finite(const Schema& written, const std::set<std::string>& finite) {
  if (!written.is_object()) return true;
  if (written.contains("$ref")) {
    return finite.count(written["$ref"].get<std::string>().substr(8)) > 0;  // "#/$defs/"
  }
  if (written.contains("anyOf")) {
    return std::any_of(written["anyOf"].begin(), written["anyOf"].end(),
                       [&](const Schema& part) { return is_finite(part, finite); });
  }
  const auto type = written.find("type");
  if (type == written.end()) return true;
  if (*type == "object") return object_is_finite(written, finite);
  return *type != "array" || array_is_finite(written, finite);
}

}  // namespace

std::string endless_definition(const Schema& written) {
  std::set<std::string> finite;
  size_t before = 0;
  do {
    before = finite.size();
    for (const auto& [name, schema] : written.items()) {
      if (finite.count(name) == 0 && is_finite(schema, finite)) finite.insert(name);
    }
  } while (finite.size() != before);
  for (const auto& [name, schema] : written.items()) {
    if (finite.count(name) == 0) return name;
  }
  return "";
}

SchemaRewriter::SchemaRewriter(const SchemaSource& source, bool additional_properties)
    : source_(source),
      additional_properties_(additional_properties),
      merger_(source, additional_properties) {}

// Definition 0 is the root. Others are written when a reference to them was met.
EnforcedSchema SchemaRewriter::run() {
  numbers_["#"] = 0;
  definitions_.push_back({&source_.root(), "#"});
  in_place_.emplace_back();
  Schema written = Schema::object();
  for (current_ = 0; current_ < definitions_.size(); ++current_) {
    const SchemaSource::Part part = definitions_[current_];
    written[definition_name(current_)] = any(*part.schema, {part.path, 0, true});
  }
  check_recursion(written);
  Schema root = Schema::object();
  root["$defs"] = std::move(written);
  root["$ref"] = "#/$defs/" + definition_name(0);
  result_.schema = root.dump();
  return std::move(result_);
}

void SchemaRewriter::check_recursion(const Schema& written) const {
  for (size_t start = 0; start < in_place_.size(); ++start) {
    std::vector<size_t> open = {start};
    std::set<size_t> seen;
    while (!open.empty()) {
      const size_t at = open.back();
      open.pop_back();
      for (const size_t next : in_place_[at]) {
        if (next == start) refuse_schema(definitions_[start].path, "$ref leads back to itself");
        if (seen.insert(next).second) open.push_back(next);
      }
    }
  }
  if (const std::string name = endless_definition(written); !name.empty()) {
    refuse_schema(definitions_[std::stoul(name.substr(1))].path,
                  "every value contains another one of this schema, without end");
  }
}

std::string SchemaRewriter::pattern(std::string expression) {
  result_.expressions.push_back(std::move(expression));
  return str_cat('%', result_.expressions.size() - 1, '%');
}

Schema SchemaRewriter::any(const Schema& schema, const Place& place) {
  return flat(merger_.flatten(schema, place.path), place);
}

// `schema` is as flatten() leaves it.
Schema SchemaRewriter::flat(const Schema& schema, const Place& place) {
  if (place.depth > kMaxDepth) refuse_schema(place.path, "the schema is nested too deep");
  if (++num_nodes_ > kMaxNodes) {
    refuse_schema(place.path, str_cat("the schema is too large, at most ", kMaxNodes, " parts"));
  }
  if (schema == true || schema.empty()) return Schema::object();
  if (schema == false) refuse_schema(place.path, "false: no value is possible");
  if (schema.contains("$ref")) return reference(schema["$ref"], place);
  if (schema.contains("anyOf")) return alternatives(schema, "anyOf", place);
  if (schema.contains("oneOf")) return alternatives(schema, "oneOf", place);
  if (schema.contains("enum")) return values(schema, place);
  return typed(schema, place);
}

Schema SchemaRewriter::reference(const Schema& ref, const Place& place) {
  const SchemaSource::Part part = source_.resolve(ref, place.path);
  const auto [found, is_new] = numbers_.emplace(part.path, definitions_.size());
  if (is_new) {
    definitions_.push_back(part);
    in_place_.emplace_back();
  }
  const size_t number = found->second;
  if (place.in_place) in_place_[current_].insert(number);
  return Schema{{"$ref", "#/$defs/" + definition_name(number)}};
}

Schema SchemaRewriter::values(const Schema& schema, const Place& place) {
  const Place here = place.child("enum");
  std::set<Json> seen;
  Schema result = Schema::array();
  for (const auto& [key, value] : schema.items()) {
    if (key != "enum" && key != "type") {
      refuse_schema(place.path,
                    str_cat("\"", key, "\" beside \"enum\" or \"const\" is not supported"));
    }
  }
  const Schema type = schema.value("type", Schema::array());
  const Schema types = type.is_array() ? type : Schema::array({type});
  for (const Schema& value : schema["enum"]) {
    const bool possible =
        types.empty() || std::any_of(types.begin(), types.end(), [&](const Schema& t) {
          return t.is_string() && is_of_type(value, t.get<std::string>());
        });
    if (possible && seen.insert(Json(value)).second) result.push_back(value);
  }
  if (result.empty()) refuse_schema(here.path, "no value is possible");
  return Schema{{"enum", std::move(result)}};
}

// What stands beside the alternatives holds for each of them.
Schema SchemaRewriter::alternatives(const Schema& schema, const std::string& key,
                                    const Place& place) {
  Schema beside = schema;
  beside.erase(key);
  const Place list = place.child(key);
  if (schema[key].empty()) refuse_schema(list.path, "the list is empty");
  std::vector<Schema> parts;
  for (size_t i = 0; i < schema[key].size(); ++i) {
    const Place here = list.child(std::to_string(i));
    Schema part = merger_.flatten(schema[key][i], here.path);
    if (!beside.empty()) {
      part = merger_.both(beside, merger_.resolved(part, here.path), here.path);
    }
    parts.push_back(std::move(part));
  }
  if (key == "oneOf") check_exclusive(parts, list);
  Schema result = Schema::array();
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i] != false) result.push_back(flat(parts[i], list.child(std::to_string(i))));
  }
  if (result.empty()) refuse_schema(list.path, "no value is possible");
  if (result.size() == 1) return result[0];
  return Schema{{"anyOf", std::move(result)}};
}

void SchemaRewriter::check_exclusive(const std::vector<Schema>& parts, const Place& place) {
  std::vector<Schema> resolved;
  for (const Schema& part : parts) resolved.push_back(merger_.resolved(part, place.path));
  constexpr size_t kMost = 200;  // a matter of pairs
  if (parts.size() > kMost) refuse_schema(place.path, str_cat("more than ", kMost, " schemas"));
  for (size_t i = 0; i < parts.size(); ++i) {
    for (size_t j = i + 1; j < parts.size(); ++j) {
      if (merger_.disjoint(resolved[i], resolved[j], place.path)) continue;
      refuse_schema(place.path,
                    str_cat("schemas ", i, " and ", j,
                            " may hold for the same value, which the keyword \"oneOf\" forbids and "
                            "is not supported; use \"anyOf\""));
    }
  }
}

// Without "type", the types that the keywords are about are the possible ones.
Schema SchemaRewriter::typed(const Schema& schema, const Place& place) {
  std::vector<std::string_view> types;
  const auto add = [&](std::string_view type) {
    if (std::find(types.begin(), types.end(), type) == types.end()) types.push_back(type);
  };
  if (const auto found = schema.find("type"); found != schema.end()) {
    const Schema list = found->is_array() ? *found : Schema::array({*found});
    constexpr std::string_view kKnown[] = {"null",   "boolean", "integer", "number",
                                           "string", "array",   "object"};
    for (const Schema& type : list) {
      const auto* known =
          std::find_if(std::begin(kKnown), std::end(kKnown), [&](std::string_view name) {
            return type.is_string() && type.get_ref<const std::string&>() == name;
          });
      if (known == std::end(kKnown)) {
        refuse_schema(child_path(place.path, "type"), "expected a type of JSON or a list of them");
      }
      add(*known);
    }
    if (types.empty()) refuse_schema(child_path(place.path, "type"), "the list is empty");
  } else {
    for (const auto& [key, value] : schema.items()) {
      if (key == "format") add("string");
      if (!type_of_keyword(key).empty()) add(type_of_keyword(key));
    }
  }
  const auto is_type = [](std::string_view name) {
    return [name](std::string_view type) { return type == name; };
  };
  if (std::any_of(types.begin(), types.end(), is_type("number")))
    std::erase_if(types, is_type("integer"));
  if (types.size() == 1) return of_type(schema, types[0], place);
  Schema result = Schema::array();
  for (const std::string_view type : types) result.push_back(of_type(schema, type, place));
  return Schema{{"anyOf", std::move(result)}};
}

Schema SchemaRewriter::of_type(const Schema& schema, std::string_view type, const Place& place) {
  if (type == "string") return string(schema, place);
  if (type == "number") return number(schema, place);
  if (type == "integer") return integer(schema, place);
  if (type == "array") return array(schema, place);
  if (type == "object") return object(schema, place);
  return Schema{{"type", type}};
}

Schema SchemaRewriter::others(const Schema& schema, const char* keyword,
                              const char* unevaluated) const {
  if (const auto found = schema.find(keyword); found != schema.end()) return *found;
  if (const auto found = schema.find(unevaluated); found != schema.end()) return *found;
  return true;
}

}  // namespace octavo
