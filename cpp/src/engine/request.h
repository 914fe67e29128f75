// A request in flight: its parameters and its samples. Owned by the engine, touched under its lock.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/beam_search.h"
#include "grammar/grammar_compiler.h"
#include "octavo/request_output.h"
#include "octavo/sampling_params.h"
#include "sample/edit_state.h"
#include "sample/repetition.h"
#include "sample/stop.h"
#include "sched/sequence.h"

namespace octavo {

struct Request;

// Of RequestTimes' clock.
inline double monotonic_seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

// One of the n samples. Until the prompt is computed only sample 0 has a sequence; the others are
// forked from it then. The sequence goes when the sample ends.
struct Sample {
  Request* request = nullptr;
  int32_t index = 0;
  std::unique_ptr<Sequence> sequence;
  std::unique_ptr<EditState> edits;  // with the sequence
  std::unique_ptr<RepetitionDetector> repetition;
  std::unique_ptr<GrammarMatcher> matcher;       // none without structured outputs
  std::vector<uint32_t> mask;                    // of the step in progress
  std::function<bool(std::span<float>)> custom;  // the logits processors; none without them
  std::string error;                             // why the step in progress gives it no token
  double last_token = 0;                         // when it came; as RequestTimes
  bool finished = false;
};

struct Request {
  RequestId id = 0;
  SamplingParams params;
  uint64_t seed = 0;
  StopCondition stop;
  int32_t max_tokens = 0;  // bounded by the context
  int32_t num_prompt_tokens = 0;
  int32_t num_cached_tokens = 0;
  std::vector<TokenLogprobs> prompt_logprobs;  // [num_prompt_tokens - 1], until they are given out
  bool prompt_failed = false;                  // a prompt token's logits hold a NaN
  bool prompt_computed = false;                // the samples have been forked
  std::shared_ptr<GrammarJob> grammar;         // none without structured outputs
  std::vector<int32_t> grammar_end_ids;
  RequestTimes times;
  int32_t num_output_tokens = 0;  // of all samples
  int32_t longest_output = 0;
  std::unique_ptr<BeamSearch> beams;  // none: samples are drawn
  std::vector<Sample> samples;        // [n, or beam_width], never resized after construction

  int32_t num_generated(const Sample& sample) const {
    return static_cast<int32_t>(sample.sequence->tokens.size()) - num_prompt_tokens;
  }
  std::span<const int32_t> output_tokens(const Sample& sample) const {
    return std::span(sample.sequence->tokens).subspan(static_cast<size_t>(num_prompt_tokens));
  }
  bool finished() const {
    for (const Sample& sample : samples) {
      if (!sample.finished) return false;
    }
    return true;
  }
};

}  // namespace octavo
