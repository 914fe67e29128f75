// A request in flight: its parameters and its samples. Owned by the engine, touched under its lock.
#pragma once

#include <memory>
#include <vector>

#include "octavo/request_output.h"
#include "octavo/sampling_params.h"
#include "sample/edit_state.h"
#include "sample/stop.h"
#include "sched/sequence.h"

namespace octavo {

struct Request;

// One of the n samples. Until the prompt is computed only sample 0 has a sequence; the others are
// forked from it then. The sequence goes when the sample ends.
struct Sample {
  Request* request = nullptr;
  int32_t index = 0;
  std::unique_ptr<Sequence> sequence;
  std::unique_ptr<EditState> edits;  // with the sequence
  bool finished = false;
};

struct Request {
  RequestId id = 0;
  SamplingParams params;
  uint64_t seed = 0;
  StopCondition stop;
  int32_t num_prompt_tokens = 0;
  int32_t num_cached_tokens = 0;
  std::vector<TokenLogprobs> prompt_logprobs;  // [num_prompt_tokens - 1], until they are given out
  bool prompt_failed = false;                  // a prompt token's logits hold a NaN
  bool prompt_computed = false;                // the samples have been forked
  std::vector<Sample> samples;                 // [n], never resized after construction

  int32_t num_generated(const Sample& sample) const {
    return static_cast<int32_t>(sample.sequence->tokens.size()) - num_prompt_tokens;
  }
  bool finished() const {
    for (const Sample& sample : samples) {
      if (!sample.finished) return false;
    }
    return true;
  }
};

}  // namespace octavo
