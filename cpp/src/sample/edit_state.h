// What the edits of one sample's logits need to know about its tokens: their counts, and which bad
// words they have begun. Owned by the engine, which tells it of every token.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "backend/op_args.h"
#include "octavo/sampling_params.h"

namespace octavo {

class EditState {
 public:
  EditState(const SamplingParams& params, std::span<const int32_t> prompt);

  void append(int32_t token);

  // The edits of the next token's logits; valid until the next call of any method. `banned` are the
  // end tokens that min_tokens forbids.
  LogitEdits edits(std::span<const int32_t> banned);

 private:
  TokenCount& count_of(int32_t token);

  float presence_penalty_;
  float frequency_penalty_;
  float repetition_penalty_;
  bool counts_tokens_;  // a penalty is on
  std::vector<TokenBias> bias_;
  std::vector<int32_t> allowed_;                 // sorted
  std::vector<std::vector<int32_t>> bad_words_;  // none empty
  std::vector<TokenCount> counts_;
  std::unordered_map<int32_t, size_t> count_index_;
  std::vector<int32_t> output_;  // only the tail that the longest bad word looks at
  size_t tail_ = 0;
  std::vector<int32_t> bad_;
};

}  // namespace octavo
