// Weights and rows of integers as kernels read them: what weight_form.h lays out, in vectors. Part
// of kernels.inc, as simd.h.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "integer_blocks.h is part of kernels.inc"
#endif

// f<form>(argument) for every form of integers.
#define OCTAVO_FOR_EACH_INTEGER_FORM(f, argument) \
  f<WeightForm::kInt4>(argument);                 \
  f<WeightForm::kInt4Min>(argument);              \
  f<WeightForm::kInt4K>(argument);                \
  f<WeightForm::kInt5>(argument);                 \
  f<WeightForm::kInt5Min>(argument);              \
  f<WeightForm::kInt5K>(argument);                \
  f<WeightForm::kInt6K>(argument);                \
  f<WeightForm::kInt8>(argument);                 \
  f<WeightForm::kInt8Channel>(argument)

namespace octavo::OCTAVO_ISA_NAMESPACE {

typedef uint8_t ByteVec __attribute__((vector_size(kLanes * 4)));

OCTAVO_INLINE ByteVec load_bytes(const uint8_t* p) {
  ByteVec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

// Bits of each byte moved towards the upper (left) or the lower end.
template <int kLeft>
OCTAVO_INLINE ByteVec shift_bytes(ByteVec v, uint8_t mask) {
  const UintVec words = bits_as<UintVec>(v);
  return bits_as<ByteVec>(kLeft >= 0 ? words << (kLeft >= 0 ? kLeft : 0)
                                     : words >> (kLeft >= 0 ? 0 : -kLeft)) &
         mask;
}

// Numbers of group G in vector `vec` of a block.
template <int kBits, int G>
OCTAVO_INLINE ByteVec load_quants(const uint8_t* block, int vec) {
  constexpr int64_t kGroupBytes = 4 * kPanelWidth;
  const uint8_t* at = block + vec * kLanes * 4;
  if constexpr (kBits == 8) return load_bytes(at + G * kGroupBytes);
  const ByteVec low = shift_bytes < G<4 ? 0 : -4>(load_bytes(at + G % 4 * kGroupBytes), 15);
  if constexpr (kBits == 4) return low;
  if constexpr (kBits == 5) {
    return low | shift_bytes<4 - G>(load_bytes(at + 4 * kGroupBytes), 16);
  }
  const ByteVec pairs = load_bytes(at + (4 + G / 4) * kGroupBytes);
  return low | shift_bytes<4 - 2 * (G % 4)>(pairs, 48);
}

// kLanes float16 as float32.
OCTAVO_INLINE Vec load_halves(const uint8_t* p, int vec) {
  return load(reinterpret_cast<const Float16*>(p) + vec * kLanes);
}

// What a tile must know of a form.
struct TileForm {
  int bits;  // 7 for all below 8
  bool has_minimum;
  int scales;
};
constexpr TileForm tile_form(WeightForm form) {
  const IntegerForm integers = integer_form(form);
  return {integers.bits < 8 ? 7 : 8, integers.has_minimum, integers.scales};
}

// The blocks of a panel as they lie in it.
template <WeightForm kForm>
struct PackedBlocks {
  static constexpr IntegerForm kInteger = integer_form(kForm);
  static constexpr TileForm kTile = tile_form(kForm);
  const uint8_t* panel;
  static constexpr int kOffset = kInteger.offset;
  OCTAVO_INLINE int offset() const { return kOffset; }
  OCTAVO_INLINE const uint8_t* block(int64_t index) const {
    return panel + kInteger.block_place(index);
  }
  template <int G>
  OCTAVO_INLINE static ByteVec quants(const uint8_t* block, int vec) {
    return load_quants<kInteger.bits, G>(block, vec);
  }
  // Scale s of block `index`, or the minimum, which follows the scales.
  OCTAVO_INLINE Vec scale(int64_t index, int64_t panel_offset, int s, int vec) const {
    const uint8_t* at = block(index) + panel_offset + kInteger.quant_bytes();
    if constexpr (!kInteger.k) {
      return load_halves(at + s * kPanelWidth * 2, vec);
    } else {
      const uint8_t* head = panel + panel_offset - kInteger.head_bytes() +
                            kInteger.block_place(index / kBlocksPerHead * kBlocksPerHead);
      at += s * kPanelWidth;
      if constexpr (!kInteger.has_minimum)
        return load_halves(head, vec) * load_small<int8_t>(at, vec);
      const Vec product =
          load_halves(head + s * kPanelWidth * 2, vec) * load_small<uint8_t>(at, vec);
      return s == 0 ? product : -product;
    }
  }
};

// Blocks after unpack_block: each [8][32][4] bytes, then float32 scales.
template <TileForm kForm>
struct UnpackedBlocks {
  static constexpr TileForm kTile = kForm;
  static constexpr int64_t kScales = kForm.scales + (kForm.has_minimum ? 1 : 0);
  static constexpr int64_t kBytes = kQuantBlock * kPanelWidth + kScales * kPanelWidth * 4;
  const uint8_t* first;  // of block `begin`
  int64_t begin;
  int number_offset;
  OCTAVO_INLINE int offset() const { return number_offset; }
  OCTAVO_INLINE const uint8_t* block(int64_t index) const {
    return first + (index - begin) * kBytes;
  }
  template <int G>
  OCTAVO_INLINE static ByteVec quants(const uint8_t* block, int vec) {
    return load_quants<8, G>(block, vec);
  }
  OCTAVO_INLINE Vec scale(int64_t index, int64_t, int s, int vec) const {
    const uint8_t* scales = block(index) + kQuantBlock * kPanelWidth + s * kPanelWidth * 4;
    return load(reinterpret_cast<const float*>(scales) + vec * kLanes);
  }
};

template <WeightForm kForm, int G>
OCTAVO_INLINE void unpack_group(const uint8_t* block, uint8_t* out) {
  for (int vec = 0; vec < kPanelVecs; ++vec) {
    const ByteVec quants = load_quants<integer_form(kForm).bits, G>(block, vec);
    __builtin_memcpy(out + G * 4 * kPanelWidth + vec * kLanes * 4, &quants, sizeof quants);
  }
  if constexpr (G + 1 < kGroupsPerBlock) unpack_group<kForm, G + 1>(block, out);
}

template <WeightForm kForm>
OCTAVO_INLINE void unpack_block(const PackedBlocks<kForm>& blocks, int64_t index, uint8_t* out) {
  unpack_group<kForm, 0>(blocks.block(index), out);
  float* scales = reinterpret_cast<float*>(out + kQuantBlock * kPanelWidth);
  for (int s = 0; s < UnpackedBlocks<tile_form(kForm)>::kScales; ++s) {
    for (int vec = 0; vec < kPanelVecs; ++vec) {
      store(scales + s * kPanelWidth + vec * kLanes, blocks.scale(index, 0, s, vec));
    }
  }
}

// Rows of x at a stride of bytes; see QuantizedRow.
struct QuantizedRows {
  const uint8_t* data;
  int64_t stride, in;

  OCTAVO_INLINE IntVec group(int64_t row, int64_t group) const {
    int32_t four;
    __builtin_memcpy(&four, data + row * stride + 4 * group, sizeof four);
    return IntVec{} + four;
  }
  OCTAVO_INLINE float value(int64_t row, int64_t index) const {
    return reinterpret_cast<const float*>(data + row * stride + in)[index];
  }
  OCTAVO_INLINE float scale(int64_t row, int64_t block) const { return value(row, block); }
  OCTAVO_INLINE float sum(int64_t row, int64_t block) const {
    return value(row, in / kQuantBlock + block);
  }
  OCTAVO_INLINE int32_t count(int64_t row, int64_t half_block) const {
    return static_cast<int32_t>(bits_as<int32_t>(value(row, 2 * (in / kQuantBlock) + half_block)));
  }
};

// Blocks that are unpacked at a time: they fit the first cache.
inline constexpr int64_t kUnpackedBlocks = 8;

// totals [panels][rows][32] of integers with one scale for a row of the weight.
OCTAVO_INLINE void scale_channels(const LinearTask& task, int64_t first_panel, float* totals) {
  const int64_t rows = task.row_end - task.row_begin;
  const auto* weight = static_cast<const uint8_t*>(task.weight) + first_panel * task.panel_bytes;
  for (int64_t panel = task.panel_begin; panel < task.panel_end; ++panel) {
    weight += task.panel_bytes;
    const float* scales = reinterpret_cast<const float*>(weight) - kPanelWidth;
    for (int64_t r = 0; r < rows; ++r, totals += kPanelWidth) {
      for (int64_t v = 0; v < kPanelWidth; v += kLanes) {
        store(totals + v, load(totals + v) * load(scales + v));
      }
    }
  }
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
