#include "quant/decode.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "quant/integer_block.h"
#include "quant/noise.h"
#include "tensor/dtype.h"

namespace octavo {
namespace {

// Sixteen-bit floats go through an aligned buffer, where the conversion can be vectorised.
void decode_sixteen_bit(DType dtype, const std::byte* data, int64_t count, float* out) {
  std::array<uint16_t, 1024> buffer;
  for (int64_t done = 0; done < count; done += buffer.size()) {
    const size_t part = std::min<size_t>(buffer.size(), static_cast<size_t>(count - done));
    std::memcpy(buffer.data(), data + 2 * done, 2 * part);
    convert_to_float(dtype, buffer.data(), part, out + done);
  }
}

// What a checkpoint with this noise in it would give: rounded to its scheme.
void decode_noise(const QuantizedMatrix& matrix, int64_t row, float* out) {
  const auto first = static_cast<uint64_t>(row) * static_cast<uint64_t>(matrix.cols);
  const auto count = static_cast<size_t>(matrix.cols);
  for (size_t i = 0; i < count; ++i) out[i] = noise_value(matrix.noise_seed, first + i);
  if (matrix.scheme == Scheme::kF16) {
    for (size_t i = 0; i < count; ++i) out[i] = float16_to_float(float_to_float16(out[i]));
  } else if (matrix.scheme == Scheme::kBF16) {
    for (size_t i = 0; i < count; ++i) out[i] = bfloat16_to_float(float_to_bfloat16(out[i]));
  }
}

void decode_integers(Scheme scheme, const std::byte* data, int64_t blocks, float* out) {
  const SchemeInfo& info = scheme_info(scheme);
  const int offset = number_offset(scheme), runs = info.block_elements / 32;
  const bool has_minimum = offset == 0;
  std::array<IntegerBlock, 8> integers;
  for (int64_t i = 0; i < blocks; ++i) {
    read_integers(scheme, data + i * info.block_bytes, integers.data());
    for (int run = 0; run < runs; ++run, out += 32) {
      const IntegerBlock& block = integers[static_cast<size_t>(run)];
      const std::array<float, 2> scales = {block.scale(0), block.scale(1)};
      for (size_t j = 0; j < 32; ++j) {
        out[j] = scales[j / 16] * static_cast<float>(block.numbers[j] - offset);
      }
      const float minimum = block.minimum();
      // -0 stays where there is no minimum.
      for (size_t j = 0; has_minimum && j < 32; ++j) out[j] += minimum;
    }
  }
}

}  // namespace

void decode_blocks(Scheme scheme, const std::byte* data, int64_t blocks, float* out) {
  if (blocks <= 0) return;
  switch (scheme) {
    case Scheme::kF32: std::memcpy(out, data, static_cast<size_t>(blocks) * 4); return;
    case Scheme::kF16: return decode_sixteen_bit(DType::kFloat16, data, blocks, out);
    case Scheme::kBF16: return decode_sixteen_bit(DType::kBFloat16, data, blocks, out);
    default: return decode_integers(scheme, data, blocks, out);
  }
}

void decode_row(const QuantizedMatrix& matrix, int64_t row, float* out) {
  OCTAVO_CHECK(row >= 0 && row < matrix.rows, "decode_row: row ", row, " of ", matrix.rows);
  if (matrix.noise_seed != 0) return decode_noise(matrix, row, out);
  decode_blocks(matrix.scheme, matrix.data + row * matrix.row_bytes(),
                matrix.cols / scheme_info(matrix.scheme).block_elements, out);
}

}  // namespace octavo
