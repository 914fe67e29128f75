// Checks a structure and turns it into a grammar of the library xgrammar, which has yet to be
// compiled for a vocabulary. Stateless; the thread that submits a structure calls it.
#pragma once

#include <xgrammar/xgrammar.h>

#include "octavo/structured_outputs.h"

namespace octavo {

// Throws InvalidArgument; see GrammarCompiler::submit. `tokenizer_info` is for structural tags.
xgrammar::Grammar parse_structure(const StructuredOutputs& structure,
                                  const xgrammar::TokenizerInfo& tokenizer_info);

}  // namespace octavo
