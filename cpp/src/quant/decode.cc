#include "quant/decode.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "tensor/dtype.h"

namespace octavo {
namespace {

// Blocks lie at any address, so nothing but bytes is read in place.
uint16_t load_u16(const uint8_t* data) {
  uint16_t value;
  std::memcpy(&value, data, sizeof value);
  return value;
}
uint32_t load_u32(const uint8_t* data) {
  uint32_t value;
  std::memcpy(&value, data, sizeof value);
  return value;
}
float load_half(const uint8_t* data) { return float16_to_float(load_u16(data)); }

// Sixteen-bit floats go through an aligned buffer, where the conversion can be vectorised.
void decode_sixteen_bit(DType dtype, const uint8_t* data, int64_t count, float* out) {
  std::array<uint16_t, 1024> buffer;
  for (int64_t done = 0; done < count; done += buffer.size()) {
    const size_t part = std::min<size_t>(buffer.size(), static_cast<size_t>(count - done));
    std::memcpy(buffer.data(), data + 2 * done, 2 * part);
    convert_to_float(dtype, buffer.data(), part, out + done);
  }
}

// d, int8 q[32]: d * q
void decode_q8_0(const uint8_t* block, float* out) {
  const float scale = load_half(block);
  for (int i = 0; i < 32; ++i)
    out[i] = scale * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

// d, nibbles: d * (q - 8). Byte i holds elements i (low) and i + 16 (high), here and below.
void decode_q4_0(const uint8_t* block, float* out) {
  const float scale = load_half(block);
  const uint8_t* quants = block + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>((quants[i] & 15) - 8);
    out[i + 16] = scale * static_cast<float>((quants[i] >> 4) - 8);
  }
}

// d, m, nibbles: d * q + m
void decode_q4_1(const uint8_t* block, float* out) {
  const float scale = load_half(block);
  const float minimum = load_half(block + 2);
  const uint8_t* quants = block + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(quants[i] & 15) + minimum;
    out[i + 16] = scale * static_cast<float>(quants[i] >> 4) + minimum;
  }
}

// The fifth bits of 32 elements are the bits of one little-endian word.
int fifth_bit(uint32_t word, int i) { return static_cast<int>((word >> i) & 1u) << 4; }

// d, fifth bits, nibbles: d * (q - 16)
void decode_q5_0(const uint8_t* block, float* out) {
  const float scale = load_half(block);
  const uint32_t high = load_u32(block + 2);
  const uint8_t* quants = block + 6;
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(((quants[i] & 15) | fifth_bit(high, i)) - 16);
    out[i + 16] = scale * static_cast<float>(((quants[i] >> 4) | fifth_bit(high, i + 16)) - 16);
  }
}

// d, m, fifth bits, nibbles: d * q + m
void decode_q5_1(const uint8_t* block, float* out) {
  const float scale = load_half(block);
  const float minimum = load_half(block + 2);
  const uint32_t high = load_u32(block + 4);
  const uint8_t* quants = block + 8;
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>((quants[i] & 15) | fifth_bit(high, i)) + minimum;
    out[i + 16] = scale * static_cast<float>((quants[i] >> 4) | fifth_bit(high, i + 16)) + minimum;
  }
}

// Q4_K and Q5_K begin alike: d, dmin, and eight 6-bit scales and minima in 12 bytes. Groups 0..3
// are in the low six bits of bytes 0..3 (scales) and 4..7 (minima); groups 4..7 have four bits in
// bytes 8..11 and their upper two on top of those bytes.
struct KScales {
  std::array<float, 8> scale;    // d * scale of each group of 32
  std::array<float, 8> minimum;  // dmin * minimum
};
KScales load_k_scales(const uint8_t* block) {
  const float scale = load_half(block);
  const float minimum = load_half(block + 2);
  const uint8_t* packed = block + 4;
  KScales result;
  for (int i = 0; i < 4; ++i) {
    const int upper_scale = (packed[8 + i] & 15) | ((packed[i] >> 6) << 4);
    const int upper_minimum = (packed[8 + i] >> 4) | ((packed[4 + i] >> 6) << 4);
    result.scale[i] = scale * static_cast<float>(packed[i] & 63);
    result.minimum[i] = minimum * static_cast<float>(packed[4 + i] & 63);
    result.scale[4 + i] = scale * static_cast<float>(upper_scale);
    result.minimum[4 + i] = minimum * static_cast<float>(upper_minimum);
  }
  return result;
}

// Scales, then 4 x 32 bytes: the low nibbles are group 2j, the high ones group 2j + 1.
void decode_q4_k(const uint8_t* block, float* out) {
  const KScales scales = load_k_scales(block);
  const uint8_t* quants = block + 16;
  for (int pair = 0; pair < 4; ++pair, quants += 32, out += 64) {
    const int low = 2 * pair;
    for (int i = 0; i < 32; ++i) {
      out[i] = scales.scale[low] * static_cast<float>(quants[i] & 15) - scales.minimum[low];
    }
    for (int i = 0; i < 32; ++i) {
      out[32 + i] =
          scales.scale[low + 1] * static_cast<float>(quants[i] >> 4) - scales.minimum[low + 1];
    }
  }
}

// As Q4_K, with fifth bits between: bit g of byte i belongs to element i of group g.
void decode_q5_k(const uint8_t* block, float* out) {
  const KScales scales = load_k_scales(block);
  const uint8_t* high = block + 16;
  const uint8_t* quants = block + 48;
  for (int pair = 0; pair < 4; ++pair, quants += 32, out += 64) {
    const int low = 2 * pair;
    for (int i = 0; i < 32; ++i) {
      const int q = (quants[i] & 15) | fifth_bit(high[i], low);
      out[i] = scales.scale[low] * static_cast<float>(q) - scales.minimum[low];
    }
    for (int i = 0; i < 32; ++i) {
      const int q = (quants[i] >> 4) | fifth_bit(high[i], low + 1);
      out[32 + i] = scales.scale[low + 1] * static_cast<float>(q) - scales.minimum[low + 1];
    }
  }
}

// Low nibbles [128], upper bit pairs [64], int8 scales of 16 groups of 16, d: d * scale * (q - 32).
// Each half of 128 elements is four runs of 32: runs 0 and 1 in the low nibbles of 64 bytes, 2 and
// 3 in the high ones; the pair of bits r of byte i belongs to element i of run r.
void decode_q6_k(const uint8_t* block, float* out) {
  const float scale = load_half(block + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* low = block + 64 * half;
    const uint8_t* high = block + 128 + 32 * half;
    const uint8_t* group_scales = block + 192 + 8 * half;
    for (int run = 0; run < 4; ++run, out += 32) {
      const uint8_t* nibbles = low + 32 * (run & 1);
      const int shift = 4 * (run >> 1);
      for (int i = 0; i < 32; ++i) {
        const float group =
            scale * static_cast<float>(static_cast<int8_t>(group_scales[2 * run + i / 16]));
        const int q = ((nibbles[i] >> shift) & 15) | (((high[i] >> (2 * run)) & 3) << 4);
        out[i] = group * static_cast<float>(q - 32);
      }
    }
  }
}

using BlockDecoder = void (*)(const uint8_t* block, float* out);

template <BlockDecoder decode>
void decode_each(Scheme scheme, const uint8_t* data, int64_t blocks, float* out) {
  const SchemeInfo& info = scheme_info(scheme);
  for (int64_t i = 0; i < blocks; ++i) {
    decode(data + i * info.block_bytes, out + i * info.block_elements);
  }
}

}  // namespace

void decode_blocks(Scheme scheme, const std::byte* data, int64_t blocks, float* out) {
  if (blocks <= 0) return;
  const auto* bytes = reinterpret_cast<const uint8_t*>(data);
  switch (scheme) {
    case Scheme::kF32: std::memcpy(out, bytes, static_cast<size_t>(blocks) * 4); return;
    case Scheme::kF16: return decode_sixteen_bit(DType::kFloat16, bytes, blocks, out);
    case Scheme::kBF16: return decode_sixteen_bit(DType::kBFloat16, bytes, blocks, out);
    case Scheme::kQ8_0: return decode_each<decode_q8_0>(scheme, bytes, blocks, out);
    case Scheme::kQ4_0: return decode_each<decode_q4_0>(scheme, bytes, blocks, out);
    case Scheme::kQ4_1: return decode_each<decode_q4_1>(scheme, bytes, blocks, out);
    case Scheme::kQ5_0: return decode_each<decode_q5_0>(scheme, bytes, blocks, out);
    case Scheme::kQ5_1: return decode_each<decode_q5_1>(scheme, bytes, blocks, out);
    case Scheme::kQ4_K: return decode_each<decode_q4_k>(scheme, bytes, blocks, out);
    case Scheme::kQ5_K: return decode_each<decode_q5_k>(scheme, bytes, blocks, out);
    case Scheme::kQ6_K: return decode_each<decode_q6_k>(scheme, bytes, blocks, out);
  }
  OCTAVO_CHECK(false, "decode_blocks of an unknown scheme");
}

void decode_row(const QuantizedMatrix& matrix, int64_t row, float* out) {
  OCTAVO_CHECK(row >= 0 && row < matrix.rows, "decode_row: row ", row, " of ", matrix.rows);
  decode_blocks(matrix.scheme, matrix.data + row * matrix.row_bytes(),
                matrix.cols / scheme_info(matrix.scheme).block_elements, out);
}

}  // namespace octavo
