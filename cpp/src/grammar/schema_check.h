// Checks a JSON schema and writes it again as one whose every keyword the grammar library enforces.
// What it cannot enforce is an error that names the keyword and where it is. Stateless.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "grammar/regex_expression.h"

namespace octavo {

struct EnforcedSchema {
  // A schema's "pattern" is %i%, which stands for the rule that expressions[i] names.
  std::string schema;
  std::vector<std::string> expressions;
  ExtraRules rules;
};

// Where the schema does not speak of additional properties: false says that there are none. A text
// of the grammar may satisfy less than the schema allows (docs/structured_outputs.md), never more.
// Throws InvalidArgument.
EnforcedSchema enforced_schema(std::string_view schema, bool additional_properties);

}  // namespace octavo
