// What \d, \w and \s stand for. Dialects disagree beyond ASCII (ECMA-262, Python with and without
// re.ASCII), so that each has two sets: what every dialect has in it, and what some have.
// Stateless.
#pragma once

#include "grammar/code_set.h"

namespace octavo {

struct RegexClass {
  CodeSet certain;
  CodeSet possible;  // at least what any dialect has in it
};

// By the small letter; null: there is none.
const RegexClass* regex_class(char32_t letter);

}  // namespace octavo
