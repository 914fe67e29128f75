#include "sample/repetition.h"

#include <algorithm>

namespace octavo {

RepetitionDetector::RepetitionDetector(const RepetitionDetection& params, int32_t max_tokens)
    : min_pattern_size_(std::max(params.min_pattern_size, 1)), min_count_(params.min_count) {
  if (params.max_pattern_size <= 0) return;
  const int32_t longest = std::min(params.max_pattern_size, max_tokens / params.min_count);
  runs_.assign(static_cast<size_t>(std::max(longest - min_pattern_size_ + 1, 0)), 0);
}

bool RepetitionDetector::append(std::span<const int32_t> output) {
  bool found = false;
  for (size_t i = 0; i < runs_.size(); ++i) {
    const size_t size = static_cast<size_t>(min_pattern_size_) + i;
    if (size >= output.size()) break;
    int32_t& run = runs_[i];
    run = output.back() == output[output.size() - 1 - size] ? run + 1 : 0;
    found = found || static_cast<int64_t>(run) >= static_cast<int64_t>(size) * (min_count_ - 1);
  }
  return found;
}

}  // namespace octavo
