// A caller's own edit of the logits, run on the host for each token of a request: the slow path,
// for what the parameters cannot say. Shared by the request's samples; called by one thread at a
// time for each sample, from the engine's threads.
#pragma once

#include <cstdint>
#include <span>

#include "octavo/export.h"

namespace octavo {

class OCTAVO_EXPORT LogitsProcessor {
 public:
  virtual ~LogitsProcessor() = default;
  // Changes `logits` (float32 [vocab_size], after penalties, bias and bans, before the temperature)
  // in place. `output_token_ids` are the sample's tokens so far. An exception ends the request with
  // its text as the error; other requests go on.
  virtual void process(std::span<const int32_t> output_token_ids, std::span<float> logits) = 0;
};

}  // namespace octavo
