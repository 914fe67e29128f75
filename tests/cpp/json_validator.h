// A plain validator of JSON schemas, independent of the checked code: the keywords that structured
// outputs support, with JSON Schema's own meaning. For tests only.
#pragma once

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>

namespace octavo::test {

using nlohmann::json;

inline size_t num_code_points(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

class JsonValidator {
 public:
  explicit JsonValidator(json root) : root_(std::move(root)) {}
  bool is_valid(const json& value) const { return check(root_, value); }

 private:
  static bool has_type(const json& value, const std::string& type) {
    if (type == "integer")
      return value.is_number() && std::floor(value.get<double>()) == value.get<double>();
    if (type == "number") return value.is_number();
    if (type == "string") return value.is_string();
    if (type == "boolean") return value.is_boolean();
    if (type == "array") return value.is_array();
    return type == "object" ? value.is_object() : value.is_null();
  }

  bool check(const json& schema, const json& value) const {
    if (schema.is_boolean()) return schema.get<bool>();
    if (schema.contains("$ref") && !check(target(schema["$ref"]), value)) return false;
    if (schema.contains("const") && schema["const"] != value) return false;
    if (schema.contains("enum") && !contains(schema["enum"], value)) return false;
    return check_type(schema, value) && check_combined(schema, value) && check_parts(schema, value);
  }
  const json& target(const std::string& ref) const {
    std::string pointer = ref.substr(1);
    for (size_t at; (at = pointer.find("%25")) != std::string::npos;) pointer.erase(at + 1, 2);
    return root_.at(json::json_pointer(pointer));
  }
  static bool contains(const json& list, const json& value) {
    return std::find(list.begin(), list.end(), value) != list.end();
  }
  static bool check_type(const json& schema, const json& value) {
    if (!schema.contains("type")) return true;
    if (schema["type"].is_string()) return has_type(value, schema["type"]);
    return std::any_of(schema["type"].begin(), schema["type"].end(),
                       [&](const json& type) { return has_type(value, type); });
  }
  bool check_combined(const json& schema, const json& value) const {
    const auto count = [&](const char* key) {
      return std::count_if(schema[key].begin(), schema[key].end(),
                           [&](const json& part) { return check(part, value); });
    };
    if (schema.contains("anyOf") && count("anyOf") == 0) return false;
    if (schema.contains("oneOf") && count("oneOf") != 1) return false;
    return !schema.contains("allOf") || count("allOf") == static_cast<long>(schema["allOf"].size());
  }
  bool check_parts(const json& schema, const json& value) const {
    if (value.is_number()) return check_number(schema, value);
    if (value.is_string()) return check_string(schema, value);
    if (value.is_array()) return check_array(schema, value);
    return !value.is_object() || check_object(schema, value);
  }
  static bool check_number(const json& schema, double value) {
    if (schema.contains("minimum") && value < schema["minimum"].get<double>()) return false;
    if (schema.contains("maximum") && value > schema["maximum"].get<double>()) return false;
    if (schema.value("exclusiveMinimum", -1e300) >= value) return false;
    if (schema.value("exclusiveMaximum", 1e300) <= value) return false;
    if (!schema.contains("multipleOf") || std::abs(value) > 9e15) return true;  // not exact there
    return std::fmod(value, schema["multipleOf"].get<double>()) == 0;
  }
  static bool check_string(const json& schema, const std::string& value) {
    const size_t length = num_code_points(value);
    if (length < schema.value("minLength", size_t{0})) return false;
    if (length > schema.value("maxLength", size_t{1} << 40)) return false;
    return !schema.contains("pattern") ||
           std::regex_search(value, std::regex(schema["pattern"].get<std::string>()));
  }
  bool check_array(const json& schema, const json& value) const {
    if (value.size() < schema.value("minItems", size_t{0})) return false;
    if (value.size() > schema.value("maxItems", size_t{1} << 40)) return false;
    const json prefix = schema.value("prefixItems", json::array());
    const json items = schema.value("items", json(true));
    for (size_t i = 0; i < value.size(); ++i) {
      if (!check(i < prefix.size() ? prefix[i] : items, value[i])) return false;
    }
    return true;
  }
  bool check_object(const json& schema, const json& value) const {
    if (value.size() < schema.value("minProperties", size_t{0})) return false;
    if (value.size() > schema.value("maxProperties", size_t{1} << 40)) return false;
    for (const json& name : schema.value("required", json::array())) {
      if (!value.contains(name.get<std::string>())) return false;
    }
    const json properties = schema.value("properties", json::object());
    const json patterns = schema.value("patternProperties", json::object());
    for (const auto& [name, part] : value.items()) {
      bool is_other = !properties.contains(name);
      if (!is_other && !check(properties[name], part)) return false;
      for (const auto& [pattern, rule] : patterns.items()) {
        if (!std::regex_search(name, std::regex(pattern))) continue;
        is_other = false;
        if (!check(rule, part)) return false;
      }
      if (is_other && !check(schema.value("additionalProperties", json(true)), part)) return false;
      if (schema.contains("propertyNames") && !check(schema["propertyNames"], name)) return false;
    }
    return true;
  }

  json root_;
};

}  // namespace octavo::test
