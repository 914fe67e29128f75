#include "sample/stop.h"

#include <algorithm>

namespace octavo {

StopCondition::StopCondition(const SamplingParams& params, std::optional<int32_t> eos_token_id,
                             int32_t max_tokens)
    : stop_ids_(params.stop_token_ids), min_tokens_(params.min_tokens), max_tokens_(max_tokens) {
  if (!params.ignore_eos) {
    eos_ = eos_token_id;
    stop_ids_.insert(stop_ids_.end(), params.extra_eos_token_ids.begin(),
                     params.extra_eos_token_ids.end());
  }
  end_ids_ = stop_ids_;
  if (eos_) end_ids_.push_back(*eos_);
}

StopCondition::Verdict StopCondition::check(int32_t token, int32_t num_generated) const {
  if (num_generated > min_tokens_) {
    if (token == eos_) return {FinishReason::kStop, std::nullopt};
    if (std::find(stop_ids_.begin(), stop_ids_.end(), token) != stop_ids_.end()) {
      return {FinishReason::kStop, token};
    }
  }
  if (num_generated >= max_tokens_) return {FinishReason::kLength, std::nullopt};
  return {};
}

std::span<const int32_t> StopCondition::banned(int32_t num_generated) const {
  if (num_generated >= min_tokens_) return {};
  return end_ids_;
}

}  // namespace octavo
