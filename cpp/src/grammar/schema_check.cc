#include "grammar/schema_check.h"

#include "grammar/schema_rewriter.h"
#include "grammar/schema_source.h"

namespace octavo {

EnforcedSchema enforced_schema(std::string_view schema, bool additional_properties) {
  const SchemaSource source(schema);
  return SchemaRewriter(source, additional_properties).run();
}

}  // namespace octavo
