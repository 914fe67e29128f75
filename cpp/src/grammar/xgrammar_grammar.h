// The Grammar and the GrammarMatcher of the library xgrammar, and the vocabulary that its grammars
// are compiled for. Made by GrammarCompiler; a vocabulary may be used from any thread.
#pragma once

#include <xgrammar/xgrammar.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "grammar/grammar.h"

namespace octavo {

class XgrammarVocabulary {
 public:
  // The tokens' bytes, at most `vocab_size`; empty: special. Ids from there on are special too.
  XgrammarVocabulary(const std::vector<std::string>& token_bytes, int64_t vocab_size);

  // Slow. Throws std::exception.
  std::unique_ptr<Grammar> compile(const xgrammar::Grammar& grammar) const;
  // For structural tags that name tokens.
  const xgrammar::TokenizerInfo& tokenizer_info() const { return tokenizer_info_; }

 private:
  xgrammar::TokenizerInfo tokenizer_info_;
};

}  // namespace octavo
