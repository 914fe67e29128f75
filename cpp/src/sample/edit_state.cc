#include "sample/edit_state.h"

#include <algorithm>

namespace octavo {

EditState::EditState(const SamplingParams& params, std::span<const int32_t> prompt)
    : presence_penalty_(params.presence_penalty),
      frequency_penalty_(params.frequency_penalty),
      repetition_penalty_(params.repetition_penalty),
      counts_tokens_(params.presence_penalty != 0 || params.frequency_penalty != 0 ||
                     params.repetition_penalty != 1),
      bias_(params.logit_bias),
      allowed_(params.allowed_token_ids),
      bad_words_(params.bad_words) {
  std::ranges::sort(allowed_);
  for (const std::vector<int32_t>& word : bad_words_) tail_ = std::max(tail_, word.size() - 1);
  if (repetition_penalty_ == 1) return;
  for (int32_t token : prompt) count_of(token).in_prompt = true;
}

TokenCount& EditState::count_of(int32_t token) {
  const auto [found, added] = count_index_.try_emplace(token, counts_.size());
  if (added) counts_.push_back({.token_id = token, .in_output = 0, .in_prompt = false});
  return counts_[found->second];
}

void EditState::append(int32_t token) {
  if (counts_tokens_) ++count_of(token).in_output;
  if (tail_ == 0) return;
  if (output_.size() == tail_) output_.erase(output_.begin());
  output_.push_back(token);
}

LogitEdits EditState::edits(std::span<const int32_t> banned) {
  bad_.clear();
  for (const std::vector<int32_t>& word : bad_words_) {
    const size_t begun = word.size() - 1;
    if (begun <= output_.size() && std::equal(word.begin(), word.end() - 1,
                                              output_.end() - static_cast<std::ptrdiff_t>(begun))) {
      bad_.push_back(word.back());
    }
  }
  return {.bias = bias_,
          .allowed = allowed_,
          .banned = banned,
          .repetition_penalty = repetition_penalty_,
          .frequency_penalty = frequency_penalty_,
          .presence_penalty = presence_penalty_,
          .counts = counts_,
          .bad = bad_};
}

}  // namespace octavo
