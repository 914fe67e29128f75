// Regular expressions as expressions of the grammar library's notation. The library would ignore
// what it cannot express; here that is an error. Stateless.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace octavo {

// Rules that expressions refer to. They belong into the same grammar. What bounds the time to
// compile is counted here too, for all of a structure's expressions.
class ExtraRules {
 public:
  // The name of a rule with this body; equal ones are one rule. Each adds `size` states.
  std::string add(const std::string& attributes, const std::string& body, int64_t size,
                  std::string_view what);
  std::string text() const;
  int64_t size() const { return size_; }

 private:
  std::map<std::string, size_t> numbers_;  // by attributes and body
  int64_t size_ = 0;
};

// What text an expression is for: any text, or the inside of a JSON string written without escapes.
enum class RegexText { kAny, kJsonString };

// All answer the name of a rule.
// The language of `regex` matched against the whole text, less what `text` rules out. Throws
// InvalidArgument, "structured_outputs: <what>: ...".
std::string regex_expression(std::string_view regex, RegexText text, std::string_view what,
                             ExtraRules& rules);

// For the inside of a JSON string: from `min_length` to `max_length` (-1: any) code points.
std::string length_expression(int64_t min_length, int64_t max_length, std::string_view what,
                              ExtraRules& rules);

// For the inside of a JSON string: what differs from each of `words` (UTF-8) within the first
// characters; as many as keeps it small.
std::string other_words_expression(const std::vector<std::string>& words, std::string_view what,
                                   ExtraRules& rules);

}  // namespace octavo
