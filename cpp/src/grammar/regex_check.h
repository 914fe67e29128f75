// Reads a regular expression strictly and writes it again in the few forms that the grammar library
// understands alike everywhere. What it cannot express is an error, never ignored. Stateless.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace octavo {

// What text the expression is for: any text, or the inside of a JSON string written without
// escapes.
enum class RegexText { kAny, kJsonString };

// The same language as `regex` matched against the whole text, less what `text` rules out. Throws
// InvalidArgument, "structured_outputs: <what>: ...".
std::string plain_regex(std::string_view regex, RegexText text, std::string_view what);

// For the inside of a JSON string: from `min_length` to `max_length` (-1: any) code points.
std::string regex_of_length(int64_t min_length, int64_t max_length);

// For the inside of a JSON string: everything but `words`, which are UTF-8.
std::string regex_of_other_words(const std::vector<std::string>& words);

}  // namespace octavo
