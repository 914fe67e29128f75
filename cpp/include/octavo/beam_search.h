// Beam search: the most probable continuations of a prompt, in place of random ones. Plain values;
// Engine::add_beam_search takes the parameters, RequestOutput::beams brings the beams.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "octavo/export.h"
#include "octavo/sampling_params.h"

namespace octavo {

// When a search ends before max_tokens, and which finished beams it keeps.
enum class EarlyStopping : uint8_t {
  // vLLM's rule: never before max_tokens while a beam is alive. Every candidate that ends is kept,
  // out of the 2 x beam_width best of each beam.
  kVllm,
  // transformers' rules, which keep only an ending candidate that is among the beam_width best of
  // all. True: as soon as beam_width beams have ended.
  kTrue,
  // False: when the best live beam, scored at its present length, is worse than the worst kept one.
  kFalse,
  // "never": the same, scored at max_tokens where length_penalty is above 0.
  kNever,
};

struct OCTAVO_EXPORT BeamSearchParams {
  int32_t beam_width = 1;       // 1..16384, and at most the engine's max_num_seqs
  int32_t max_tokens = 16;      // at least 1; the context bounds it too
  float length_penalty = 1.0f;  // finite; the score is the sum of log-probabilities over
                                // length^length_penalty, the length without the prompt
  EarlyStopping early_stopping = EarlyStopping::kVllm;
  int32_t num_return_sequences = 0;  // 0: beam_width; at most that
  // Groups of beam_width / num_groups beams, searched one after the other in each step: a token
  // that the groups before took n times has diversity_penalty x n less. Vijayakumar et al. 2016.
  int32_t num_groups = 1;
  float diversity_penalty = 0.0f;  // at least 0; above 0 needs num_groups > 1
  // Texts that end a beam. Needs Engine::set_vocabulary.
  std::vector<std::string> stop;
  bool stream = false;  // each step's output brings the best beam so far
  // Everything else about tokens: end and stop ids, ignore_eos, min_tokens, penalties, logit_bias,
  // allowed_token_ids, bad_words, structured_outputs. Log-probabilities are taken after these. What
  // speaks of drawing (n, temperature, seed, top_k ...) has no effect.
  SamplingParams tokens;

  // `tokens` as the engine takes it: with max_tokens, and nothing drawn.
  SamplingParams effective_tokens() const;
  // Throws InvalidArgument, naming the field, for a value outside its range.
  void validate(int64_t vocab_size) const;
};

}  // namespace octavo
