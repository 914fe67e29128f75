// A regular expression as a tree, and the strict reader that makes it. Repetition is not told
// greedy from lazy: only the language counts. Stateless.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "grammar/code_set.h"

namespace octavo {

struct RegexTree {
  enum class Kind : uint8_t {
    kSet,       // one code point of `set`
    kSequence,  // the children, one after another; none: the empty text
    kChoice,    // one of the children
    kRepeat,    // the child, min to max times
    kBegin,     // ^
    kEnd,       // $
  };
  Kind kind = Kind::kSequence;
  CodeSet set = {};
  std::vector<RegexTree> children = {};
  int64_t min = 0;
  int64_t max = -1;  // -1: any number
};

// The syntax is ECMA-262's less what a grammar cannot express or what other dialects read
// otherwise; see docs/structured_outputs.md. Anchors stand only where the whole text begins or
// ends, and are gone from the result. Throws InvalidArgument, "structured_outputs: <what>: ...".
RegexTree parse_regex(std::string_view regex, std::string_view what);

}  // namespace octavo
