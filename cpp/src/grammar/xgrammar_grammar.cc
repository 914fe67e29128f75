#include "grammar/xgrammar_grammar.h"

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "base/printable.h"
#include "grammar/xgrammar_log.h"
#include "octavo/error.h"

namespace octavo {
namespace {

class XgrammarMatcher final : public GrammarMatcher {
 public:
  XgrammarMatcher(const xgrammar::CompiledGrammar& grammar, std::optional<std::vector<int>> ends,
                  int64_t vocab_size)
      : matcher_(grammar, std::move(ends)), vocab_size_(vocab_size) {}
  XgrammarMatcher(xgrammar::GrammarMatcher matcher, int64_t vocab_size)
      : matcher_(std::move(matcher)), vocab_size_(vocab_size) {}

  void fill_mask(std::span<uint32_t> mask) override {
    OCTAVO_CHECK(static_cast<int64_t>(mask.size()) == mask_words(vocab_size_),
                 "structured_outputs: the mask has ", mask.size(), " words");
    if (matcher_.IsTerminated()) {
      std::fill(mask.begin(), mask.end(), 0u);
      return;
    }
    int64_t shape[] = {static_cast<int64_t>(mask.size())};
    DLTensor tensor{};
    tensor.data = mask.data();
    tensor.device = {kDLCPU, 0};
    tensor.ndim = 1;
    tensor.dtype = xgrammar::GetBitmaskDLType();
    tensor.shape = shape;
    matcher_.FillNextTokenBitmask(&tensor);
    if (const int64_t used = vocab_size_ % 32) mask.back() &= (1u << used) - 1;
  }

  bool accept(int32_t token) override {
    return token >= 0 && token < vocab_size_ && !terminated() && matcher_.AcceptToken(token);
  }
  bool completed() const override { return matcher_.IsCompleted(); }
  bool terminated() const override { return matcher_.IsTerminated(); }
  std::unique_ptr<GrammarMatcher> fork() const override {
    return std::make_unique<XgrammarMatcher>(matcher_.Fork(), vocab_size_);
  }

 private:
  xgrammar::GrammarMatcher matcher_;
  int64_t vocab_size_;
};

class XgrammarGrammar final : public Grammar {
 public:
  explicit XgrammarGrammar(xgrammar::CompiledGrammar grammar)
      : grammar_(std::move(grammar)),
        memory_bytes_(static_cast<int64_t>(grammar_.MemorySizeBytes())),
        vocab_size_(grammar_.GetTokenizerInfo().GetVocabSize()) {}

  std::unique_ptr<GrammarMatcher> new_matcher(std::span<const int32_t> end_ids) const override {
    std::vector<int> ends;
    for (const int32_t id : end_ids) {
      if (id >= 0 && id < vocab_size_) ends.push_back(id);
    }
    // The library takes no empty list; the vocabulary has no ends of its own.
    return std::make_unique<XgrammarMatcher>(
        grammar_, ends.empty() ? std::nullopt : std::optional(std::move(ends)), vocab_size_);
  }
  int64_t memory_bytes() const override { return memory_bytes_; }

 private:
  xgrammar::CompiledGrammar grammar_;
  int64_t memory_bytes_;
  int64_t vocab_size_;
};

}  // namespace

// An empty list of ends, or the library would look for texts such as "</s>".
XgrammarVocabulary::XgrammarVocabulary(const std::vector<std::string>& token_bytes,
                                       int64_t vocab_size)
    : tokenizer_info_(token_bytes, xgrammar::VocabType::RAW, static_cast<int>(vocab_size),
                      std::vector<int32_t>{}) {}

std::unique_ptr<Grammar> XgrammarVocabulary::compile(const xgrammar::Grammar& grammar) const {
  // A compiler without cache is as good as stateless; one thread, so that errors come back here.
  xgrammar::GrammarCompiler compiler(tokenizer_info_, /*max_threads=*/1, /*cache_enabled=*/false);
  XgrammarWarnings warnings;
  auto compiled = std::make_unique<XgrammarGrammar>(compiler.CompileGrammar(grammar));
  if (!warnings.first().empty()) throw InvalidArgument(printable(warnings.first(), 400));
  return compiled;
}

}  // namespace octavo
