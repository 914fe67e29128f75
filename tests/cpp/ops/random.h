// Seeded numbers of the op tests. A case makes the same data on every back end.
#pragma once

#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

namespace octavo::test {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1.0p-53; }  // [0, 1)
  int32_t below(int64_t bound) {
    return static_cast<int32_t>(engine_() % static_cast<uint64_t>(bound));
  }
  uint64_t bits() { return engine_(); }

  std::vector<float> normals(int64_t count, double scale = 1.0, double mean = 0.0) {
    std::normal_distribution<double> normal(mean, scale);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = static_cast<float>(normal(engine_));
    return values;
  }
  // Sums of four uniform numbers, of variance one: nearly as good, and ten times as fast.
  std::vector<float> nearly_normals(int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) {
      const uint64_t four = engine_();
      const uint64_t sum =
          (four & 0xffff) + (four >> 16 & 0xffff) + (four >> 32 & 0xffff) + (four >> 48);
      value = (static_cast<float>(sum) - 131070.0f) * static_cast<float>(0x1p-16 * 1.7320508);
    }
    return values;
  }
  std::vector<int32_t> integers_below(int64_t count, int64_t bound) {
    std::vector<int32_t> values(static_cast<size_t>(count));
    for (int32_t& value : values) value = below(bound);
    return values;
  }
  std::vector<int32_t> permutation(int64_t count) {
    std::vector<int32_t> values(static_cast<size_t>(count));
    std::iota(values.begin(), values.end(), 0);
    for (int64_t i = count - 1; i > 0; --i) std::swap(values[i], values[below(i + 1)]);
    return values;
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace octavo::test
