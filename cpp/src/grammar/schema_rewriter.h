// Writes a checked schema in the few forms that the grammar library enforces exactly. Used by
// enforced_schema alone, for one schema.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/schema_check.h"
#include "grammar/schema_merge.h"
#include "grammar/schema_source.h"

namespace octavo {

class SchemaRewriter {
 public:
  SchemaRewriter(const SchemaSource& source, bool additional_properties);
  EnforcedSchema run();  // throws InvalidArgument

 private:
  // Where a schema stands.
  struct Place {
    std::string path;
    int depth;
    bool in_place;  // about the value of the definition itself, not about a part of it
    Place child(std::string_view key) const { return {child_path(path, key), depth + 1, in_place}; }
    Place inside(std::string_view key) const { return {child_path(path, key), depth + 1, false}; }
  };

  Schema any(const Schema& schema, const Place& place);
  Schema flat(const Schema& schema, const Place& place);
  Schema reference(const Schema& ref, const Place& place);
  Schema values(const Schema& schema, const Place& place);
  Schema alternatives(const Schema& schema, const std::string& key, const Place& place);
  void check_exclusive(const std::vector<Schema>& parts, const Place& place);
  Schema typed(const Schema& schema, const Place& place);
  Schema of_type(const Schema& schema, std::string_view type, const Place& place);
  Schema string(const Schema& schema, const Place& place);
  Schema number(const Schema& schema, const Place& place);
  Schema integer(const Schema& schema, const Place& place);
  Schema array(const Schema& schema, const Place& place);
  Schema object(const Schema& schema, const Place& place);
  Schema named_object(const Schema& schema, const Schema& others, const Place& place);
  Schema pattern_object(const Schema& schema, const Place& place);
  Schema key_object(const Schema& schema, const Schema& others, const Place& place);
  void count_properties(const Schema& schema, bool may_repeat, Schema& result, const Place& place);
  std::string pattern(std::string expression);  // its place holder
  // What a schema says of properties or items that it does not name: a schema or a boolean.
  Schema others(const Schema& schema, const char* keyword, const char* unevaluated) const;
  void check_recursion(const Schema& definitions) const;

  const SchemaSource& source_;
  const bool additional_properties_;
  const SchemaMerger merger_;
  std::map<std::string, size_t> numbers_;        // of definitions, by canonical path
  std::vector<SchemaSource::Part> definitions_;  // by number
  std::vector<std::set<size_t>> in_place_;       // by number: definitions that stand for its value
  size_t current_ = 0;                           // the definition that is being written
  int64_t num_nodes_ = 0;
  EnforcedSchema result_;
};

// Nothing, or the path of a definition of which no value is finite. `written` are definitions as
// SchemaRewriter writes them, by their names.
std::string endless_definition(const Schema& written);

}  // namespace octavo
