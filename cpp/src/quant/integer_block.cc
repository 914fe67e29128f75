#include "quant/integer_block.h"

#include <array>
#include <cstring>

#include "base/check.h"

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

// Both are float16.
void set_scale(IntegerBlock& block, uint16_t scale, uint16_t minimum = 0) {
  block.outer_scale = scale;
  block.outer_minimum = minimum;
  block.inner_scale = {1, 1};
  block.inner_minimum = -1;
}

// Byte i holds numbers i (low) and i + 16 (high), here and below.
void read_nibbles(const uint8_t* quants, IntegerBlock& block) {
  for (int i = 0; i < 16; ++i) {
    block.numbers[i] = quants[i] & 15;
    block.numbers[i + 16] = quants[i] >> 4;
  }
}

// The fifth bits of 32 numbers are the bits of one little-endian word.
void add_fifth_bits(uint32_t word, IntegerBlock& block) {
  for (int i = 0; i < 32; ++i) {
    block.numbers[i] = static_cast<uint8_t>(block.numbers[i] | ((word >> i) & 1u) << 4);
  }
}

// d, int8 [32]
void read_q8_0(const uint8_t* data, IntegerBlock* blocks) {
  set_scale(*blocks, load_u16(data));
  for (int i = 0; i < 32; ++i) blocks->numbers[i] = static_cast<uint8_t>(data[2 + i] ^ 0x80);
}

// d, nibbles
void read_q4_0(const uint8_t* data, IntegerBlock* blocks) {
  set_scale(*blocks, load_u16(data));
  read_nibbles(data + 2, *blocks);
}

// d, m, nibbles
void read_q4_1(const uint8_t* data, IntegerBlock* blocks) {
  set_scale(*blocks, load_u16(data), load_u16(data + 2));
  read_nibbles(data + 4, *blocks);
}

// d, fifth bits, nibbles
void read_q5_0(const uint8_t* data, IntegerBlock* blocks) {
  set_scale(*blocks, load_u16(data));
  read_nibbles(data + 6, *blocks);
  add_fifth_bits(load_u32(data + 2), *blocks);
}

// d, m, fifth bits, nibbles
void read_q5_1(const uint8_t* data, IntegerBlock* blocks) {
  set_scale(*blocks, load_u16(data), load_u16(data + 2));
  read_nibbles(data + 8, *blocks);
  add_fifth_bits(load_u32(data + 4), *blocks);
}

// Q4_K and Q5_K begin alike: d, dmin, and eight 6-bit scales and minima in 12 bytes. Groups 0..3
// are in the low six bits of bytes 0..3 (scales) and 4..7 (minima); groups 4..7 have four bits in
// bytes 8..11 and their upper two on top of those bytes.
void read_k_scales(const uint8_t* data, IntegerBlock* blocks) {
  const uint8_t* packed = data + 4;
  const auto set = [&](int group, int scale, int minimum) {
    IntegerBlock& block = blocks[group];
    set_scale(block, load_u16(data), load_u16(data + 2));
    block.inner_scale.fill(static_cast<int16_t>(scale));
    block.inner_minimum = static_cast<int16_t>(minimum);
  };
  for (int i = 0; i < 4; ++i) {
    set(i, packed[i] & 63, packed[4 + i] & 63);
    set(4 + i, (packed[8 + i] & 15) | ((packed[i] >> 6) << 4),
        (packed[8 + i] >> 4) | ((packed[4 + i] >> 6) << 4));
  }
}

// 4 x 32 bytes: the low nibbles are group 2j, the high ones group 2j + 1.
void read_k_nibbles(const uint8_t* quants, IntegerBlock* blocks) {
  for (int pair = 0; pair < 4; ++pair, quants += 32) {
    for (int i = 0; i < 32; ++i) {
      blocks[2 * pair].numbers[i] = quants[i] & 15;
      blocks[2 * pair + 1].numbers[i] = quants[i] >> 4;
    }
  }
}

void read_q4_k(const uint8_t* data, IntegerBlock* blocks) {
  read_k_scales(data, blocks);
  read_k_nibbles(data + 16, blocks);
}

// As Q4_K, with fifth bits between: bit g of byte i belongs to number i of group g.
void read_q5_k(const uint8_t* data, IntegerBlock* blocks) {
  read_k_scales(data, blocks);
  read_k_nibbles(data + 48, blocks);
  const uint8_t* high = data + 16;
  for (int group = 0; group < 8; ++group) {
    for (int i = 0; i < 32; ++i) {
      blocks[group].numbers[i] =
          static_cast<uint8_t>(blocks[group].numbers[i] | ((high[i] >> group) & 1) << 4);
    }
  }
}

// Low nibbles [128], upper bit pairs [64], int8 scales of 16 groups of 16, d. Each half of 128
// numbers is four runs of 32: runs 0 and 1 in the low nibbles of 64 bytes, 2 and 3 in the high
// ones; the pair of bits r of byte i belongs to number i of run r.
void read_q6_k(const uint8_t* data, IntegerBlock* blocks) {
  for (int run = 0; run < 8; ++run) {
    const uint8_t* nibbles = data + 64 * (run / 4) + 32 * (run & 1);
    const uint8_t* high = data + 128 + 32 * (run / 4);
    const uint8_t* scales = data + 192 + 2 * run;
    const int shift = 4 * (run % 4 >> 1);
    IntegerBlock& block = blocks[run];
    for (int i = 0; i < 32; ++i) {
      block.numbers[i] = static_cast<uint8_t>(((nibbles[i] >> shift) & 15) |
                                              ((high[i] >> (2 * (run % 4))) & 3) << 4);
    }
    set_scale(block, load_u16(data + 208));
    block.inner_scale = {static_cast<int8_t>(scales[0]), static_cast<int8_t>(scales[1])};
  }
}

}  // namespace

int number_offset(Scheme scheme) {
  switch (scheme) {
    case Scheme::kQ4_0: return 8;
    case Scheme::kQ5_0: return 16;
    case Scheme::kQ6_K: return 32;
    case Scheme::kQ8_0: return 128;
    default: return 0;
  }
}

void read_integers(Scheme scheme, const std::byte* block, IntegerBlock* blocks) {
  const auto* data = reinterpret_cast<const uint8_t*>(block);
  switch (scheme) {
    case Scheme::kQ8_0: return read_q8_0(data, blocks);
    case Scheme::kQ4_0: return read_q4_0(data, blocks);
    case Scheme::kQ4_1: return read_q4_1(data, blocks);
    case Scheme::kQ5_0: return read_q5_0(data, blocks);
    case Scheme::kQ5_1: return read_q5_1(data, blocks);
    case Scheme::kQ4_K: return read_q4_k(data, blocks);
    case Scheme::kQ5_K: return read_q5_k(data, blocks);
    case Scheme::kQ6_K: return read_q6_k(data, blocks);
    default: OCTAVO_CHECK(false, "read_integers of a scheme without integers");
  }
}

}  // namespace octavo
