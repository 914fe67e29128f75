// How the tokens of one request are chosen and when the request ends. A plain value; the engine
// validates it once, in Engine::add_request.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "octavo/export.h"

namespace octavo {

// Added to the logit of one token.
struct OCTAVO_EXPORT TokenBias {
  int32_t token_id = 0;
  float bias = 0.0f;
};

struct OCTAVO_EXPORT SamplingParams {
  int32_t n = 1;             // samples of the prompt, 1..16384; greedy needs 1
  float temperature = 1.0f;  // 0..2; below 1e-5 is greedy
  float top_p = 1.0f;        // (0, 1]: the smallest set of tokens with at least this probability
  int32_t top_k = 0;         // 0 or -1 is off; ties with the k-th token are kept
  float min_p = 0.0f;        // [0, 1]: relative to the most probable token
  std::optional<uint64_t> seed;  // none: derived from the engine's seed and the request's number
  std::optional<int32_t> max_tokens;  // 0: only compute the prompt; none: up to the model's context
  int32_t min_tokens = 0;             // end tokens are not sampled before this many, 0..max_tokens
  bool ignore_eos = false;            // the model's own end-of-sequence token does not end it
  std::vector<int32_t> stop_token_ids;  // end the request with finish reason "stop"
  // Ids that the model's configuration ends on, besides its end-of-sequence token. Ignored with
  // ignore_eos, like that token; reported as the stop token, like stop_token_ids.
  std::vector<int32_t> extra_eos_token_ids;

  // Penalties, on the tokens so far. Presence and frequency look at the output alone, repetition at
  // the prompt too: logits above 0 are divided by it, others multiplied.
  float presence_penalty = 0.0f;    // [-2, 2]
  float frequency_penalty = 0.0f;   // [-2, 2], times the count
  float repetition_penalty = 1.0f;  // above 0

  std::vector<TokenBias> logit_bias;       // at most 1024, each id once; biases are finite
  std::vector<int32_t> allowed_token_ids;  // no other token is sampled; empty: all
  std::vector<std::vector<int32_t>>
      bad_words;  // at most 128 token sequences that are never completed

  // Log-probabilities of the sampled token and of this many of the most probable ones, at most
  // EngineConfig::max_logprobs; -1: the whole vocabulary; none: not at all.
  std::optional<int32_t> logprobs;
  std::vector<int32_t>
      logprob_token_ids;  // of these ids in the place of the most probable, at most 128

  // The same of every prompt token but the first, on the model's own logits. The request then
  // computes its whole prompt, also what the prefix cache holds.
  std::optional<int32_t> prompt_logprobs;

  bool greedy() const { return temperature < 1e-5f; }
  // Throws InvalidArgument, naming the field, for a value outside its range. `vocab_size` bounds
  // the token ids.
  void validate(int64_t vocab_size) const;
};

}  // namespace octavo
