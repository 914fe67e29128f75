// One schema for what several say together (allOf, and what stands beside $ref or anyOf), and
// whether two schemas can never hold for the same value (oneOf). Used by the schema check alone.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/schema_source.h"

namespace octavo {

class SchemaMerger {
 public:
  SchemaMerger(const SchemaSource& source, bool additional_properties)
      : source_(source), additional_properties_(additional_properties) {}

  // The constraints of `schema`, an object or a boolean, without allOf and without a $ref that has
  // something beside it. `const` becomes `enum`. Throws InvalidArgument where it cannot be said so.
  Schema flatten(const Schema& schema, const std::string& path) const;
  // What both flat schemas allow.
  Schema both(const Schema& a, const Schema& b, const std::string& path) const;
  // True only if no text that SchemaRewriter writes for one of them satisfies the other. Schemas as
  // flatten() leaves them.
  bool disjoint(const Schema& a, const Schema& b, const std::string& path) const;
  // As flatten(), with a lone $ref resolved too.
  Schema resolved(const Schema& schema, const std::string& path) const;

 private:
  Schema flatten(const Schema& schema, const std::string& path, int depth) const;
  bool is_closed(const Schema& schema, const std::string& name) const;

  const SchemaSource& source_;
  bool additional_properties_;
  mutable int64_t work_ = 0;  // parts that were put together
};

// The types that a flat schema's values can have.
std::vector<std::string_view> possible_types(const Schema& schema);
bool contains_value(const Schema& list, const Schema& value);

}  // namespace octavo
