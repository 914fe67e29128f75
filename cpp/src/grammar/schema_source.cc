#include "grammar/schema_source.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "base/check.h"
#include "base/json.h"
#include "base/printable.h"
#include "grammar/text_check.h"
#include "octavo/error.h"

namespace octavo {
namespace {

enum class Form : uint8_t { kAny, kString, kNumber, kCount, kBool, kList, kStrings, kObject };

struct Keyword {
  Form form;
  std::string_view type;  // empty: about every value
};

const std::map<std::string_view, Keyword>& keywords() {
  static const std::map<std::string_view, Keyword> all = {
      {"$ref", {Form::kString, ""}},
      {"$defs", {Form::kObject, ""}},
      {"definitions", {Form::kObject, ""}},
      {"type", {Form::kAny, ""}},
      {"const", {Form::kAny, ""}},
      {"enum", {Form::kList, ""}},
      {"anyOf", {Form::kList, ""}},
      {"oneOf", {Form::kList, ""}},
      {"allOf", {Form::kList, ""}},
      {"format", {Form::kString, ""}},
      {"minimum", {Form::kNumber, "number"}},
      {"maximum", {Form::kNumber, "number"}},
      {"exclusiveMinimum", {Form::kNumber, "number"}},
      {"exclusiveMaximum", {Form::kNumber, "number"}},
      {"multipleOf", {Form::kNumber, "number"}},
      {"minLength", {Form::kCount, "string"}},
      {"maxLength", {Form::kCount, "string"}},
      {"pattern", {Form::kString, "string"}},
      {"items", {Form::kAny, "array"}},
      {"prefixItems", {Form::kList, "array"}},
      {"minItems", {Form::kCount, "array"}},
      {"maxItems", {Form::kCount, "array"}},
      {"uniqueItems", {Form::kBool, "array"}},
      {"unevaluatedItems", {Form::kAny, "array"}},
      {"properties", {Form::kObject, "object"}},
      {"required", {Form::kStrings, "object"}},
      {"additionalProperties", {Form::kAny, "object"}},
      {"unevaluatedProperties", {Form::kAny, "object"}},
      {"patternProperties", {Form::kObject, "object"}},
      {"propertyNames", {Form::kAny, "object"}},
      {"minProperties", {Form::kCount, "object"}},
      {"maxProperties", {Form::kCount, "object"}},
  };
  return all;
}

bool is_count(const Schema& value) {
  return value.is_number() && value.get<double>() >= 0 && value.get<double>() <= 1e15 &&
         std::floor(value.get<double>()) == value.get<double>();
}

bool has_form(const Schema& value, Form form) {
  switch (form) {
    case Form::kAny: return true;
    case Form::kString: return value.is_string();
    case Form::kNumber: return value.is_number() && std::isfinite(value.get<double>());
    case Form::kCount: return is_count(value);
    case Form::kBool: return value.is_boolean();
    case Form::kList: return value.is_array();
    case Form::kObject: return value.is_object();
    case Form::kStrings:
      return value.is_array() && std::all_of(value.begin(), value.end(),
                                             [](const Schema& item) { return item.is_string(); });
  }
  return false;
}

std::string_view name_of(Form form) {
  constexpr std::string_view kNames[] = {"a value",
                                         "a string",
                                         "a number",
                                         "a whole number from 0",
                                         "a boolean",
                                         "an array",
                                         "an array of strings",
                                         "an object"};
  return kNames[static_cast<size_t>(form)];
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Undoes a URI's %xx and then a pointer's ~0 and ~1; nothing: malformed.
std::optional<std::string> decode(std::string_view part) {
  std::string bytes;
  for (size_t i = 0; i < part.size(); ++i) {
    if (part[i] != '%') {
      bytes += part[i];
      continue;
    }
    const int high = i + 1 < part.size() ? hex_digit(part[i + 1]) : -1;
    const int low = i + 2 < part.size() ? hex_digit(part[i + 2]) : -1;
    if (high < 0 || low < 0) return std::nullopt;
    bytes += static_cast<char>(high * 16 + low);
    i += 2;
  }
  std::string result;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != '~') {
      result += bytes[i];
    } else if (++i < bytes.size() && (bytes[i] == '0' || bytes[i] == '1')) {
      result += bytes[i] == '0' ? '~' : '/';
    } else {
      return std::nullopt;
    }
  }
  return result;
}

// The part that a pointer's word names; null: there is none.
const Schema* step(const Schema& at, const std::string& word) {
  if (at.is_object()) {
    const auto found = at.find(word);
    return found == at.end() ? nullptr : &*found;
  }
  const bool digits =
      !word.empty() && word.size() <= 6 &&
      std::all_of(word.begin(), word.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!at.is_array() || !digits || (word.size() > 1 && word[0] == '0')) return nullptr;
  const size_t index = std::stoul(word);
  return index < at.size() ? &at[index] : nullptr;
}

}  // namespace

SchemaSource::SchemaSource(std::string_view text, std::string_view what) {
  check_text(text, what);
  try {
    parse_json(text, what, DuplicateKeys::kRefuse);  // within limits of depth
    root_ = Schema::parse(text);
  } catch (const LoadError& e) {
    throw InvalidArgument(std::string("structured_outputs: ") + e.what());
  } catch (const std::exception& e) {
    throw InvalidArgument(str_cat("structured_outputs: ", what, ": ", printable(e.what())));
  }
}

SchemaSource::Part SchemaSource::resolve(const Schema& ref, const std::string& path) const {
  const std::string here = child_path(path, "$ref");
  const std::string uri = ref.get<std::string>();
  if (uri.empty() || uri[0] != '#') {
    refuse_schema(here, str_cat("\"", printable(uri), "\" is not in this schema, expected #/..."));
  }
  if (uri.size() > 1 && uri[1] != '/') {
    refuse_schema(here, "an anchor is not supported, expected #/...");
  }
  Part part{&root_, "#"};
  for (size_t begin = 2; begin <= uri.size() && uri.size() > 1;) {
    const size_t end = std::min(uri.find('/', begin), uri.size());
    const auto word = decode(std::string_view(uri).substr(begin, end - begin));
    const Schema* next = word ? step(*part.schema, *word) : nullptr;
    if (next == nullptr) refuse_schema(here, str_cat("\"", printable(uri), "\" names nothing"));
    part = {next, child_path(part.path, *word)};
    begin = end + 1;
  }
  return part;
}

void refuse_schema(const std::string& path, const std::string& message) {
  throw InvalidArgument(str_cat("structured_outputs: json: ", printable(path), ": ", message));
}

std::string child_path(const std::string& path, std::string_view key) {
  std::string result = path + "/";
  for (const char c : key) {
    if (c == '~') {
      result += "~0";
    } else if (c == '/') {
      result += "~1";
    } else {
      result += c;
    }
  }
  return result;
}

bool is_annotation(std::string_view keyword) {
  constexpr std::string_view kAll[] = {"title",    "description", "default",      "examples",
                                       "example",  "$schema",     "$comment",     "deprecated",
                                       "readOnly", "writeOnly",   "discriminator"};
  return std::find(std::begin(kAll), std::end(kAll), keyword) != std::end(kAll);
}

std::string_view type_of_keyword(std::string_view keyword) {
  const auto found = keywords().find(keyword);
  return found == keywords().end() ? "" : found->second.type;
}

void check_keywords(const Schema& schema, const std::string& path) {
  for (const auto& [key, value] : schema.items()) {
    if (is_annotation(key) || (key == "$id" && path == "#")) continue;
    const auto found = keywords().find(key);
    if (found == keywords().end()) {
      refuse_schema(path, str_cat("the keyword \"", printable(key), "\" is not supported"));
    }
    if (!has_form(value, found->second.form)) {
      refuse_schema(child_path(path, key), str_cat("expected ", name_of(found->second.form)));
    }
  }
}

Schema constraints_of(const Schema& schema) {
  Schema result = Schema::object();
  for (const auto& [key, value] : schema.items()) {
    const bool definition = key == "$defs" || key == "definitions" || key == "$id";
    if (!definition && !is_annotation(key)) result[key] = value;
  }
  return result;
}

std::string_view type_of(const Schema& value) {
  if (value.is_number()) {
    const double number = value.get<double>();
    return std::floor(number) == number ? "integer" : "number";
  }
  if (value.is_string()) return "string";
  if (value.is_boolean()) return "boolean";
  if (value.is_array()) return "array";
  return value.is_object() ? "object" : "null";
}

bool is_of_type(const Schema& value, std::string_view type) {
  return type_of(value) == type || (type == "number" && value.is_number());
}

}  // namespace octavo
