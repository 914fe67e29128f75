// Finds rules of a grammar that no text ends: a model that follows one can never be done. The
// library would take them. Stateless.
#pragma once

#include <xgrammar/xgrammar.h>

#include <string>

namespace octavo {

// The name of a rule that can be reached from the grammar's start and of which no text is finite;
// empty: there is none. For grammars as they were parsed, before they are compiled.
std::string endless_rule(const xgrammar::Grammar& grammar);

}  // namespace octavo
