// Checks a structural tag's own schemas, regular expressions and grammars, and writes it again with
// schemas and expressions as grammars of ours. Stateless.
#pragma once

#include <string>
#include <string_view>

namespace octavo {

// Also takes the older form, {"structures": [...], "triggers": [...]}. Throws InvalidArgument.
std::string enforced_structural_tag(std::string_view text, bool additional_properties,
                                    bool any_whitespace);

}  // namespace octavo
