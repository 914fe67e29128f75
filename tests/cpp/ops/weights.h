// Matrices as checkpoints store them, for packing.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "ops/random.h"

namespace octavo::test {

// `values` as `dtype` holds them.
inline std::vector<float> rounded(std::vector<float> values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * sizeof(float));
  convert_from_float(values.data(), values.size(), dtype, bytes.data());
  convert_to_float(dtype, bytes.data(), values.size(), values.data());
  return values;
}

// A matrix [rows, cols] of a checkpoint; owns its bytes, which are deliberately not aligned.
struct StoredMatrix {
  StoredMatrix(Scheme scheme, int64_t rows, int64_t cols, const void* data)
      : matrix{.scheme = scheme, .rows = rows, .cols = cols} {
    const auto size = static_cast<size_t>(matrix.row_bytes() * rows);
    bytes.resize(size + 1);
    if (size != 0) std::memcpy(bytes.data() + 1, data, size);
    matrix.data = bytes.data() + 1;
  }
  StoredMatrix(int64_t rows, int64_t cols, const std::vector<float>& values)
      : StoredMatrix(Scheme::kF32, rows, cols, values.data()) {}
  StoredMatrix(StoredMatrix&&) = default;

  WeightSegment segment(std::vector<int32_t> row_order = {}, bool transposed = false) const {
    return {.matrix = matrix, .row_order = std::move(row_order), .transposed = transposed};
  }
  std::unique_ptr<PackedWeight> pack(Backend& backend, const WeightTarget& target) const {
    const WeightSegment only = segment();
    return backend.pack({&only, 1}, target);
  }

  std::vector<std::byte> bytes;
  QuantizedMatrix matrix;
};

// Random blocks of a scheme whose scales are float16 at the start of the block.
inline StoredMatrix random_blocks(Scheme scheme, int64_t rows, int64_t cols, Random& random) {
  const SchemeInfo& info = scheme_info(scheme);
  const int64_t blocks = rows * cols / info.block_elements;
  std::vector<uint8_t> bytes(static_cast<size_t>(blocks * info.block_bytes));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.bits() >> 13);
  const int scales = scheme == Scheme::kQ4_1 || scheme == Scheme::kQ5_1 ? 2 : 1;
  for (int64_t block = 0; block < blocks; ++block) {
    for (int i = 0; i < scales; ++i) {
      const uint16_t scale = float_to_float16(static_cast<float>(random.uniform() * 0.02 - 0.01));
      std::memcpy(bytes.data() + block * info.block_bytes + i * 2, &scale, sizeof(scale));
    }
  }
  return StoredMatrix(scheme, rows, cols, bytes.data());
}

}  // namespace octavo::test
