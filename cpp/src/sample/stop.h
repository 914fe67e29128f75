// When a sample ends by its tokens: end-of-sequence and stop ids, and lengths. Stop strings are
// found where text exists, in the front end. A plain value, owned by the engine for each sample.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "octavo/request_output.h"
#include "octavo/sampling_params.h"

namespace octavo {

class StopCondition {
 public:
  // `max_tokens` is already bounded by the context.
  StopCondition(const SamplingParams& params, std::optional<int32_t> eos_token_id,
                int32_t max_tokens);

  struct Verdict {
    FinishReason reason = FinishReason::kNone;
    std::optional<int32_t> stop_token_id;
  };
  // After `num_generated` tokens of which `token` is the last. The model's own end-of-sequence
  // token comes first and is not reported as a stop token; then stop ids, then the length.
  Verdict check(int32_t token, int32_t num_generated) const;

  int32_t num_end_ids() const { return static_cast<int32_t>(end_ids_.size()); }

  // Ids that must not be sampled as token number `num_generated` (from 0): the end ids, until
  // min_tokens are there.
  std::span<const int32_t> banned(int32_t num_generated) const;

 private:
  std::optional<int32_t> eos_;
  std::vector<int32_t> stop_ids_;
  std::vector<int32_t> end_ids_;  // all of the above
  int32_t min_tokens_;
  int32_t max_tokens_;
};

}  // namespace octavo
