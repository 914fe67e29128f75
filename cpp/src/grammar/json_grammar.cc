#include "grammar/json_grammar.h"

#include <xgrammar/xgrammar.h>

#include <optional>

#include "grammar/schema_check.h"

namespace octavo {
namespace {

// What a text with any_whitespace may hold between two tokens of JSON: enough for indented text,
// and a model that has nothing to say cannot go on with it forever.
constexpr int kMaxWhitespace = 64;

// Puts the expressions where their place holders stand.
std::string filled(const std::string& grammar, const EnforcedSchema& schema) {
  constexpr std::string_view kBegin = "Regex(\"%", kEnd = "%\", json_string=true)";
  std::string result;
  for (size_t at = 0;;) {
    const size_t begin = grammar.find(kBegin, at);
    result += grammar.substr(at, begin == std::string::npos ? begin : begin - at);
    if (begin == std::string::npos) break;
    const size_t end = grammar.find(kEnd, begin);
    const size_t digits = begin + kBegin.size();
    result += schema.expressions.at(std::stoul(grammar.substr(digits, end - digits)));
    at = end + kEnd.size();
  }
  return result + "\n" + schema.rules.text();
}

}  // namespace

std::string json_grammar(std::string_view schema, bool additional_properties, bool any_whitespace) {
  const EnforcedSchema enforced = enforced_schema(schema, additional_properties);
  const auto grammar = xgrammar::Grammar::FromJSONSchema(
      enforced.schema, any_whitespace, /*indent=*/std::nullopt, /*separators=*/std::nullopt,
      /*strict_mode=*/false, any_whitespace ? std::optional<int>(kMaxWhitespace) : std::nullopt);
  return filled(grammar.ToString(), enforced);
}

}  // namespace octavo
