// Finds an output that repeats itself (SamplingParams::repetition_detection). One for each sample,
// owned by the engine, which tells it of every token.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "octavo/sampling_params.h"

namespace octavo {

class RepetitionDetector {
 public:
  // `max_tokens` bounds the output, and with it the patterns that can be repeated at all.
  RepetitionDetector(const RepetitionDetection& params, int32_t max_tokens);

  // `output` is the sample's tokens, the last of them new. True when it ends in min_count times the
  // same pattern.
  bool append(std::span<const int32_t> output);

 private:
  int32_t min_pattern_size_;
  int32_t min_count_;
  // For each pattern size from min_pattern_size_ on: the number of last tokens that equal those a
  // pattern before them.
  std::vector<int32_t> runs_;
};

}  // namespace octavo
