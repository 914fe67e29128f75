// A JSON schema as the user wrote it: its parts by pointer, and its keywords by kind. Used by the
// schema check alone.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace octavo {

// Properties come in the order of the text.
using Schema = nlohmann::ordered_json;

class SchemaSource {
 public:
  // Throws InvalidArgument that begins with structured_outputs and `what`.
  explicit SchemaSource(std::string_view text, std::string_view what = "json");

  const Schema& root() const { return root_; }
  struct Part {
    const Schema* schema;
    std::string path;  // canonical: equal parts have equal ones
  };
  // What a $ref means; `path` is where it stands. Throws InvalidArgument.
  Part resolve(const Schema& ref, const std::string& path) const;

 private:
  Schema root_;
};

// "structured_outputs: json: <path>: <message>".
[[noreturn]] void refuse_schema(const std::string& path, const std::string& message);

std::string child_path(const std::string& path, std::string_view key);

// Keywords that say nothing about which values are valid.
bool is_annotation(std::string_view keyword);
// The type whose values a keyword is about; empty: it is about all, or unknown.
std::string_view type_of_keyword(std::string_view keyword);
// Refuses unknown keywords, and values that are not of the keyword's kind.
void check_keywords(const Schema& schema, const std::string& path);
// Without annotations and definitions.
Schema constraints_of(const Schema& schema);

// The type's name of a value: "integer" also for 1.0.
std::string_view type_of(const Schema& value);
bool is_of_type(const Schema& value, std::string_view type);

}  // namespace octavo
