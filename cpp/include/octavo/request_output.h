// What one engine step produced for one sample of one request. A plain value, owned by the caller.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octavo/export.h"

namespace octavo {

using RequestId = uint64_t;

enum class FinishReason : uint8_t { kNone, kStop, kLength, kAbort, kError, kRepetition };

OCTAVO_EXPORT std::string_view finish_reason_name(FinishReason reason);

// Log-probabilities at one position: of the token that is there, then of the most probable ones in
// order, or of the ids that were asked for. A rank is the number of tokens at least as probable.
struct OCTAVO_EXPORT TokenLogprobs {
  std::vector<int32_t> token_ids;
  std::vector<float> logprobs;
  std::vector<int32_t> ranks;
};

// When a request passed which point, in seconds of the monotonic clock (std::chrono::steady_clock);
// 0: not yet.
struct OCTAVO_EXPORT RequestTimes {
  double queued = 0;       // it was submitted
  double scheduled = 0;    // its first step began
  double first_token = 0;  // of any sample
  double last_token = 0;
  int32_t num_preemptions = 0;
};

// One result of a beam search.
struct OCTAVO_EXPORT Beam {
  std::vector<int32_t> token_ids;                    // generated, an end token included
  double logprob = 0;                                // the sum over token_ids
  double score = 0;                                  // logprob / length^length_penalty
  FinishReason finish_reason = FinishReason::kNone;  // none: it is still alive
  std::optional<int32_t> stop_token_id;              // as in RequestOutput
  int32_t stop_index = -1;  // of BeamSearchParams::stop, where one ended it
  // For each token the candidates that it was chosen from, best first. Shared between beams.
  std::vector<std::shared_ptr<const TokenLogprobs>> logprobs;
};

struct OCTAVO_EXPORT RequestOutput {
  RequestId request_id = 0;
  int32_t sample_index = 0;             // 0..n-1
  std::vector<int32_t> new_token_ids;   // since the last output of this sample; a stop token too
  std::vector<TokenLogprobs> logprobs;  // one for each new token, where they were asked for
  // Of the prompt's tokens 1.., with the first output of sample 0, where they were asked for.
  std::vector<TokenLogprobs> prompt_logprobs;
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<int32_t> stop_token_id;  // the stop token that ended it; none for the model's EOS
  std::string error;                     // with FinishReason::kError: what went wrong
  int32_t num_cached_tokens = 0;         // prompt tokens that the prefix cache supplied
  bool request_finished = false;         // every sample of the request has ended
  RequestTimes times;
  // Of a beam search: the results, best first, with the last output; before it the best beam so
  // far, where that was asked for.
  std::vector<Beam> beams;

  bool finished() const { return finish_reason != FinishReason::kNone; }
};

}  // namespace octavo
