// The integers and scales of block formats, before they are multiplied: what kernels that compute
// with integers take. Stateless, callable from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "quant/scheme.h"
#include "tensor/dtype.h"

namespace octavo {

// 32 elements: scale(i / 16) * (numbers[i] - offset) + minimum().
struct IntegerBlock {
  std::array<uint8_t, 32> numbers;  // without a sign
  // As float16; common to all blocks that one read_integers gives.
  uint16_t outer_scale, outer_minimum;
  // Factors of K schemes; 1 and -1 in all others.
  std::array<int16_t, 2> inner_scale;
  int16_t inner_minimum;

  float scale(size_t half) const {
    return float16_to_float(outer_scale) * static_cast<float>(inner_scale[half]);
  }
  float minimum() const {
    return -(float16_to_float(outer_minimum) * static_cast<float>(inner_minimum));
  }
};

// The offset of a scheme's numbers; 0 for those with a minimum.
int number_offset(Scheme scheme);

// Whether read_integers knows the scheme.
inline bool has_integers(Scheme scheme) { return scheme >= Scheme::kQ8_0; }

// One block of `scheme`, [block_elements / 32] of them.
void read_integers(Scheme scheme, const std::byte* block, IntegerBlock* blocks);

}  // namespace octavo
