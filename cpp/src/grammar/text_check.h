// Checks of text that a user gives. Stateless.
#pragma once

#include <string_view>

namespace octavo {

// Throws InvalidArgument, "structured_outputs: <what>: ...", unless `text` is UTF-8 without NUL.
void check_text(std::string_view text, std::string_view what);

// As check_text, for a grammar in the library's notation: refuses what that reads otherwise than
// GBNF, or does not do right.
void check_grammar_text(std::string_view text, std::string_view what);

// The next code point of valid UTF-8, which is taken off `text`.
char32_t take_code_point(std::string_view& text);

}  // namespace octavo
