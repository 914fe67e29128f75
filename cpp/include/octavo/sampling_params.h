// How the tokens of one request are chosen and when the request ends. A plain value; the engine
// validates it once, in Engine::add_request.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "octavo/export.h"

namespace octavo {

struct OCTAVO_EXPORT SamplingParams {
  int32_t n = 1;             // samples of the prompt, 1..16384; greedy needs 1
  float temperature = 1.0f;  // 0..2; below 1e-5 is greedy
  float top_p = 1.0f;        // (0, 1]: the smallest set of tokens with at least this probability
  int32_t top_k = 0;         // 0 or -1 is off; ties with the k-th token are kept
  float min_p = 0.0f;        // [0, 1]: relative to the most probable token
  std::optional<uint64_t> seed;  // none: derived from the engine's seed and the request's number
  std::optional<int32_t> max_tokens;  // at least 1; none: up to the model's context
  int32_t min_tokens = 0;             // end tokens are not sampled before this many, 0..max_tokens
  bool ignore_eos = false;            // the model's own end-of-sequence token does not end it
  std::vector<int32_t> stop_token_ids;  // end the request with finish reason "stop"
  // Ids that the model's configuration ends on, besides its end-of-sequence token. Ignored with
  // ignore_eos, like that token; reported as the stop token, like stop_token_ids.
  std::vector<int32_t> extra_eos_token_ids;

  bool greedy() const { return temperature < 1e-5f; }
  // Throws InvalidArgument, naming the field, for a value outside its range. `vocab_size` bounds
  // the token ids.
  void validate(int64_t vocab_size) const;
};

}  // namespace octavo
