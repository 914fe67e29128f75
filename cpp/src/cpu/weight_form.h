// The forms in which the CPU back end keeps weights, and how their panels lie in memory. A panel is
// 32 output features with all input features; panels follow each other, each on a cache line. The
// layout is the same for every instruction set.
//
// float32, float16: [in][32].
// bfloat16: [in / 32][16][32][2], pairs of input features side by side, as the dot products of
//   AVX512-BF16 and AMX read them; input features are padded with 0 to a multiple of 32.
// Integers: blocks of 32 input features, [in / 32] x {quants, scales}. Weights are unsigned numbers
//   u of some bits; w = d * (u - offset), or w = d * u + m. Input features stand in groups of four,
//   [8 groups][32 outputs][4], as VNNI and AMX read them:
//     4 bits: [4][32][4] bytes; group g in the low half, g + 4 in the high half of byte g.
//     5 bits: the 4-bit form, then the fifth bits, [32][4] bytes, of group g in bit g.
//     6 bits: the 4-bit form, then the upper two, [2][32][4] bytes; those of group g in bits
//       2 * (g % 4) of byte g / 4.
//     8 bits: [8][32][4] bytes.
//   Scales are float16: d [32], then m [32] where there is one. K forms have them in two steps, as
//   GGUF: eight blocks follow a head of float16 D [32], then M [32] where there is a minimum; a
//   block's own scales are 8-bit integers c [scales][32], then n [32]; d = D * c, m = -(M * n). The
//   "channel" form has none in its blocks; float32 d [32] follow the last one.
#pragma once

#include <cstdint>

namespace octavo {

enum class WeightForm : uint8_t {
  kFloat32,
  kFloat16,
  kBFloat16,
  kInt4,         // Q4_0
  kInt4Min,      // Q4_1
  kInt4K,        // Q4_K
  kInt5,         // Q5_0
  kInt5Min,      // Q5_1
  kInt5K,        // Q5_K
  kInt6K,        // Q6_K
  kInt8,         // Q8_0
  kInt8Channel,  // made on load
};
inline constexpr int kNumWeightForms = 12;

// Output features of a panel; the last panel of a weight is padded with 0.
inline constexpr int64_t kPanelWidth = 32;
// Input features of a block of integers.
inline constexpr int64_t kQuantBlock = 32;
inline constexpr int64_t kGroupsPerBlock = kQuantBlock / 4;

inline constexpr int64_t kBlocksPerHead = 8;  // of K forms

struct IntegerForm {
  int bits;
  bool has_minimum;
  int scales;  // of an output feature in a block; 0: one for the whole row
  int offset;  // 0 with a minimum
  bool k = false;

  constexpr int64_t quant_bytes() const { return kQuantBlock * kPanelWidth * bits / 8; }
  constexpr int64_t block_bytes() const {
    return quant_bytes() + (k ? 1 : 2) * kPanelWidth * (scales + (has_minimum ? 1 : 0));
  }
  constexpr int64_t head_bytes() const { return k ? 2 * kPanelWidth * (has_minimum ? 2 : 1) : 0; }
  // Where block `index` of a panel begins.
  constexpr int64_t block_place(int64_t index) const {
    return index * block_bytes() + (k ? (index / kBlocksPerHead + 1) * head_bytes() : 0);
  }
};

constexpr bool is_integer(WeightForm form) { return form >= WeightForm::kInt4; }

constexpr IntegerForm integer_form(WeightForm form) {
  switch (form) {
    case WeightForm::kInt4: return {4, false, 1, 8};
    case WeightForm::kInt4Min: return {4, true, 1, 0};
    case WeightForm::kInt4K: return {4, true, 1, 0, true};
    case WeightForm::kInt5: return {5, false, 1, 16};
    case WeightForm::kInt5Min: return {5, true, 1, 0};
    case WeightForm::kInt5K: return {5, true, 1, 0, true};
    case WeightForm::kInt6K: return {6, false, 2, 32, true};
    case WeightForm::kInt8Channel: return {8, false, 0, 128};
    default: return {8, false, 1, 128};
  }
}

// `in` is a multiple of 32 for integers, of 256 for K forms.
constexpr int64_t panel_bytes(WeightForm form, int64_t in) {
  switch (form) {
    case WeightForm::kFloat32: return in * kPanelWidth * 4;
    case WeightForm::kFloat16: return in * kPanelWidth * 2;
    case WeightForm::kBFloat16: return (in + 31) / 32 * 32 * kPanelWidth * 2;
    default: break;
  }
  const IntegerForm integers = integer_form(form);
  const int64_t blocks = in / kQuantBlock;
  return blocks * integers.block_bytes() + blocks / kBlocksPerHead * integers.head_bytes() +
         (integers.scales == 0 ? 4 * kPanelWidth : 0);
}

// A row of x as integer weights need it: int8 q [in], with x = scale * q in every block of 32; then
// float32 scale [in / 32] and sum [in / 32], of scale * q; then int32 count [in / 16], the sums of
// q. All of a row begin on a cache line.
struct QuantizedRow {
  const int8_t* q;
  const float* scale;
  const float* sum;
  const int32_t* count;
};
constexpr int64_t quantized_row_bytes(int64_t in) { return in + in / kQuantBlock * 16; }

// A row of x as bfloat16, padded with 0 to a multiple of 32.
constexpr int64_t bfloat16_row_bytes(int64_t in) { return (in + 31) / 32 * 64; }

}  // namespace octavo
