#include "sample/repetition.h"

#include <doctest/doctest.h>

#include <random>

namespace octavo {
namespace {

using Ids = std::vector<int32_t>;

// The definition: the output ends in `min_count` equal patterns.
bool repeats(const Ids& output, const RepetitionDetection& params) {
  for (int32_t size = std::max(params.min_pattern_size, 1); size <= params.max_pattern_size;
       ++size) {
    const int32_t total = size * params.min_count, length = static_cast<int32_t>(output.size());
    if (total > length) break;
    bool same = true;
    for (int32_t i = length - total + size; i < length; ++i) {
      same = same && output[static_cast<size_t>(i)] == output[static_cast<size_t>(i - size)];
    }
    if (same) return true;
  }
  return false;
}

TEST_CASE("repetitions are found as they are defined") {
  int32_t found = 0;
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    const auto below = [&](uint32_t limit) { return static_cast<int32_t>(random() % limit); };
    RepetitionDetection params{.max_pattern_size = 1 + below(6), .min_count = 2 + below(3)};
    params.min_pattern_size = below(static_cast<uint32_t>(params.max_pattern_size) + 1);
    RepetitionDetector detector(params, 60);
    Ids output;
    for (int32_t i = 0; i < 60; ++i) {
      // Copies of what was there, now and then something new.
      const int32_t back = 1 + below(6);
      const bool copies = below(8) != 0 && back <= static_cast<int32_t>(output.size());
      output.push_back(copies ? output[output.size() - static_cast<size_t>(back)] : below(5));
      const bool expected = repeats(output, params);
      REQUIRE(detector.append(output) == expected);
      found += expected;
    }
  }
  CHECK(found > 1000);
}

TEST_CASE("without a pattern size nothing is looked for, and huge ones cost nothing") {
  RepetitionDetector off({}, 10);
  CHECK_FALSE(off.append(Ids(8, 1)));
  RepetitionDetector huge({.max_pattern_size = 2147483647, .min_count = 2}, 4);
  CHECK_FALSE(huge.append(Ids{1}));
  CHECK(huge.append(Ids{1, 1}));
}

}  // namespace
}  // namespace octavo
