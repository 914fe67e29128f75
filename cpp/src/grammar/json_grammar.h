// JSON of a schema as a grammar in the grammar library's notation, whose start is `root`.
// Stateless.
#pragma once

#include <string>
#include <string_view>

namespace octavo {

// Throws InvalidArgument. See StructuredOutputs for the flags.
std::string json_grammar(std::string_view schema, bool additional_properties, bool any_whitespace);

}  // namespace octavo
