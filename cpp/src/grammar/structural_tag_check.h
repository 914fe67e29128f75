// Checks a structural tag's own schemas and regular expressions as enforced_schema and plain_regex
// do, and writes it again with them. Stateless.
#pragma once

#include <string>
#include <string_view>

namespace octavo {

// Also takes the older form, {"structures": [...], "triggers": [...]}. Throws InvalidArgument.
std::string enforced_structural_tag(std::string_view text, bool additional_properties);

}  // namespace octavo
