// How the tokens of one request are chosen and when the request ends. A plain value; the engine
// validates it once, in Engine::add_request.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "octavo/export.h"
#include "octavo/logits_processor.h"
#include "octavo/structured_outputs.h"

namespace octavo {

// Added to the logit of one token.
struct OCTAVO_EXPORT TokenBias {
  int32_t token_id = 0;
  float bias = 0.0f;
};

// Ends a sample with FinishReason::kRepetition when its output ends in the same min_pattern_size to
// max_pattern_size tokens min_count times in a row.
struct OCTAVO_EXPORT RepetitionDetection {
  int32_t max_pattern_size = 0;  // tokens; 0: off
  int32_t min_pattern_size = 0;  // 0 is 1
  int32_t min_count = 0;         // at least 2 where it is on
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

  // The text that may be generated. Needs Engine::set_vocabulary. The model's end tokens end it
  // where the structure is complete, also with ignore_eos or before min_tokens when nothing else
  // may follow.
  std::optional<StructuredOutputs> structured_outputs;

  RepetitionDetection repetition_detection;
  std::vector<std::shared_ptr<LogitsProcessor>> logits_processors;  // run in this order
  bool skip_reading_prefix_cache = false;  // compute the whole prompt, also what is cached

  bool greedy() const { return temperature < 1e-5f; }
  // Throws InvalidArgument, naming the field, for a value outside its range. `vocab_size` bounds
  // the token ids.
  void validate(int64_t vocab_size) const;
};

}  // namespace octavo
