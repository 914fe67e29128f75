#include "cpu/integer_panel.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/integer_block.h"

namespace octavo {
namespace {

constexpr int64_t kGroupBytes = 4 * kPanelWidth;

// Four bytes of lane `lane` in group `group` of a plane.
uint8_t* lane_bytes(uint8_t* plane, int64_t group, int64_t lane) {
  return plane + group * kGroupBytes + 4 * lane;
}
const uint8_t* lane_bytes(const uint8_t* plane, int64_t group, int64_t lane) {
  return plane + group * kGroupBytes + 4 * lane;
}

// The lower four bits of numbers i and i + 16 in byte i.
void write_nibbles(const uint8_t* numbers, int64_t lane, uint8_t* block) {
  std::array<uint8_t, 16> bytes;
  for (size_t i = 0; i < 16; ++i) {
    bytes[i] = static_cast<uint8_t>((numbers[i] & 15) | (numbers[i + 16] & 15) << 4);
  }
  for (int64_t group = 0; group < 4; ++group) {
    std::memcpy(lane_bytes(block, group, lane), bytes.data() + 4 * group, 4);
  }
}

void write_numbers(int bits, const uint8_t* numbers, int64_t lane, uint8_t* block) {
  if (bits == 8) {
    for (int64_t group = 0; group < kGroupsPerBlock; ++group) {
      std::memcpy(lane_bytes(block, group, lane), numbers + 4 * group, 4);
    }
    return;
  }
  write_nibbles(numbers, lane, block);
  if (bits == 4) return;
  for (int64_t i = 0; i < kQuantBlock; ++i) {
    const int64_t group = i / 4;
    const int upper = numbers[i] >> 4;
    uint8_t* byte = lane_bytes(block, bits == 5 ? 4 : 4 + group / 4, lane) + i % 4;
    const auto shift = bits == 5 ? group : 2 * (group % 4);
    *byte = static_cast<uint8_t>(*byte | upper << shift);
  }
}

uint8_t read_number(int bits, const uint8_t* block, int64_t lane, int64_t i) {
  const int64_t group = i / 4;
  if (bits == 8) return lane_bytes(block, group, lane)[i % 4];
  const int low = lane_bytes(block, group % 4, lane)[i % 4] >> (group < 4 ? 0 : 4) & 15;
  if (bits == 4) return static_cast<uint8_t>(low);
  const uint8_t upper = lane_bytes(block, bits == 5 ? 4 : 4 + group / 4, lane)[i % 4];
  const int high = bits == 5 ? upper >> group & 1 : upper >> 2 * (group % 4) & 3;
  return static_cast<uint8_t>(low | high << 4);
}

void write_half(uint8_t* halves, int64_t index, uint16_t half) {
  std::memcpy(halves + 2 * index, &half, sizeof half);
}
float read_half(const uint8_t* halves, int64_t index) {
  uint16_t half;
  std::memcpy(&half, halves + 2 * index, sizeof half);
  return float16_to_float(half);
}

// The scales of block `index` in lane `lane`.
void write_scales(const IntegerForm& form, const IntegerBlock& from, int64_t index, int64_t lane,
                  uint8_t* panel) {
  uint8_t* scales = panel + form.block_place(index) + form.quant_bytes();
  if (!form.k) {
    write_half(scales, lane, from.outer_scale);
    if (form.has_minimum) write_half(scales, kPanelWidth + lane, from.outer_minimum);
    return;
  }
  for (int64_t s = 0; s < form.scales; ++s) {
    scales[s * kPanelWidth + lane] = static_cast<uint8_t>(from.inner_scale[static_cast<size_t>(s)]);
  }
  if (form.has_minimum) {
    scales[form.scales * kPanelWidth + lane] = static_cast<uint8_t>(from.inner_minimum);
  }
  if (index % kBlocksPerHead != 0) return;
  uint8_t* head = panel + form.block_place(index) - form.head_bytes();
  write_half(head, lane, from.outer_scale);
  if (form.has_minimum) write_half(head, kPanelWidth + lane, from.outer_minimum);
}

// Scale s of block `index`, or the minimum, which follows the scales.
float read_scale(const IntegerForm& form, const uint8_t* panel, int64_t index, int64_t lane,
                 int64_t s) {
  const uint8_t* scales = panel + form.block_place(index) + form.quant_bytes();
  if (!form.k) return read_half(scales, s * kPanelWidth + lane);
  const uint8_t* head =
      panel + form.block_place(index / kBlocksPerHead * kBlocksPerHead) - form.head_bytes();
  const uint8_t small = scales[s * kPanelWidth + lane];
  if (!form.has_minimum)
    return read_half(head, lane) * static_cast<float>(static_cast<int8_t>(small));
  const float product = read_half(head, s * kPanelWidth + lane) * static_cast<float>(small);
  return s == 0 ? product : -product;
}

}  // namespace

std::optional<WeightForm> integer_form_of(Scheme scheme) {
  switch (scheme) {
    case Scheme::kQ4_0: return WeightForm::kInt4;
    case Scheme::kQ4_1: return WeightForm::kInt4Min;
    case Scheme::kQ4_K: return WeightForm::kInt4K;
    case Scheme::kQ5_0: return WeightForm::kInt5;
    case Scheme::kQ5_1: return WeightForm::kInt5Min;
    case Scheme::kQ5_K: return WeightForm::kInt5K;
    case Scheme::kQ6_K: return WeightForm::kInt6K;
    case Scheme::kQ8_0: return WeightForm::kInt8;
    default: return std::nullopt;
  }
}

void pack_integer_panel(WeightForm form, const std::array<EncodedRow, kPanelWidth>& rows,
                        int64_t in, std::byte* out) {
  const IntegerForm shape = integer_form(form);
  std::array<IntegerBlock, 8> integers;
  for (int64_t lane = 0; lane < kPanelWidth; ++lane) {
    const EncodedRow& row = rows[static_cast<size_t>(lane)];
    if (row.data == nullptr) continue;
    const SchemeInfo& info = scheme_info(row.scheme);
    auto* panel = reinterpret_cast<uint8_t*>(out);
    int64_t index = 0;
    for (int64_t i = 0; i < in / info.block_elements; ++i) {
      read_integers(row.scheme, row.data + i * info.block_bytes, integers.data());
      for (int64_t run = 0; run < info.block_elements / kQuantBlock; ++run, ++index) {
        const IntegerBlock& from = integers[static_cast<size_t>(run)];
        write_numbers(shape.bits, from.numbers.data(), lane, panel + shape.block_place(index));
        write_scales(shape, from, index, lane, panel);
      }
    }
  }
}

void pack_channel_panel(const std::array<const float*, kPanelWidth>& rows, int64_t in,
                        std::byte* out) {
  const int64_t block_bytes = integer_form(WeightForm::kInt8Channel).block_bytes();
  const int64_t blocks = in / kQuantBlock;
  std::array<float, kPanelWidth> scales{};
  std::array<uint8_t, kQuantBlock> numbers;
  for (int64_t lane = 0; lane < kPanelWidth; ++lane) {
    const float* row = rows[static_cast<size_t>(lane)];
    if (row == nullptr) continue;
    float most = 0.0f;
    for (int64_t i = 0; i < in; ++i) most = std::max(most, std::fabs(row[i]));
    scales[static_cast<size_t>(lane)] = most / 127.0f;
    const float inverse = most > 0.0f ? 127.0f / most : 0.0f;
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t i = 0; i < kQuantBlock; ++i) {
        const float number = std::nearbyintf(row[block * kQuantBlock + i] * inverse);
        numbers[static_cast<size_t>(i)] = static_cast<uint8_t>(static_cast<int>(number) + 128);
      }
      write_numbers(8, numbers.data(), lane, reinterpret_cast<uint8_t*>(out) + block * block_bytes);
    }
  }
  std::memcpy(out + blocks * block_bytes, scales.data(), sizeof scales);
}

void read_integer_row(WeightForm form, const std::byte* panel, int64_t lane, int64_t in,
                      float* out) {
  const IntegerForm shape = integer_form(form);
  const auto* bytes = reinterpret_cast<const uint8_t*>(panel);
  float row_scale = 0.0f;
  if (shape.scales == 0) {
    std::memcpy(&row_scale, bytes + in / kQuantBlock * shape.block_bytes() + 4 * lane, 4);
  }
  for (int64_t index = 0; index < in / kQuantBlock; ++index, out += kQuantBlock) {
    const uint8_t* block = bytes + shape.block_place(index);
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t s = shape.scales == 2 ? half : 0;
      const float scale = shape.scales == 0 ? row_scale : read_scale(shape, bytes, index, lane, s);
      for (int64_t i = half * 16; i < half * 16 + 16; ++i) {
        out[i] = scale * static_cast<float>(read_number(shape.bits, block, lane, i) - shape.offset);
      }
    }
    if (!shape.has_minimum) continue;
    const float minimum = read_scale(shape, bytes, index, lane, shape.scales);
    for (int64_t i = 0; i < kQuantBlock; ++i) out[i] += minimum;
  }
}

}  // namespace octavo
