// x * weight^T over panels of integers. Part of kernels.inc, as simd.h.
//
// The products of a block of input features are summed as integers, which is exact; the blocks'
// sums join the total in order, each by the same operations in every tile. So an output's bits
// depend on its row alone, and are the same for every instruction set with fused multiply-add.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "integer_kernel.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

// Vectors and panels of a tile of some rows, as TileShape.
#if defined(OCTAVO_ISA_AVX512)
inline constexpr int kMaxIntegerRows = 6;
constexpr TileShape integer_shape(int rows) {
  return rows == 1 ? TileShape{2, 4} : rows <= 3 ? TileShape{2, 2} : TileShape{2, 1};
}
#elif defined(OCTAVO_ISA_NEON)
inline constexpr int kMaxIntegerRows = 4;
constexpr TileShape integer_shape(int rows) {
  return rows == 1 ? TileShape{8, 1} : rows == 2 ? TileShape{4, 1} : TileShape{2, 1};
}
#else
inline constexpr int kMaxIntegerRows = 2;
constexpr TileShape integer_shape(int rows) {
  return rows == 1 ? TileShape{4, 1} : TileShape{2, 1};
}
#endif

// Up to this many rows read a panel as it lies, tile by tile; more rows share what was unpacked
// once, which numbers of 8 bits need not be. (On Zen 4, 16 rows: as they lie 1.3 to 1.4 times as
// fast as unpacked for 4 and 8 bits, 0.9 times for 6.)
constexpr int64_t max_packed_rows(WeightForm form) {
  const int bits = integer_form(form).bits;
  return bits == 8 ? kMaxTaskRows : bits == 4 ? 3 * kMaxIntegerRows : kMaxIntegerRows;
}

#if defined(OCTAVO_ISA_AVX512)
#define OCTAVO_MADDUBS(u, x) _mm512_maddubs_epi16(u, x)
#define OCTAVO_MADD(a, b) _mm512_madd_epi16(a, b)
#define OCTAVO_SET16(x) _mm512_set1_epi16(x)
typedef __m512i RawVec;
#elif defined(OCTAVO_ISA_AVX2)
#define OCTAVO_MADDUBS(u, x) _mm256_maddubs_epi16(u, x)
#define OCTAVO_MADD(a, b) _mm256_madd_epi16(a, b)
#define OCTAVO_SET16(x) _mm256_set1_epi16(x)
typedef __m256i RawVec;
#elif defined(__SSSE3__)
#define OCTAVO_MADDUBS(u, x) _mm_maddubs_epi16(u, x)
#define OCTAVO_MADD(a, b) _mm_madd_epi16(a, b)
#define OCTAVO_SET16(x) _mm_set1_epi16(x)
typedef __m128i RawVec;
#endif

// What dot4 takes from numbers of 8 bits, so that they have a sign, as NEON's products want them.
#if defined(OCTAVO_ISA_NEON)
template <int kBits>
inline constexpr int kDotOffset = kBits == 8 ? 128 : 0;
#else
template <int kBits>
inline constexpr int kDotOffset = 0;
#endif

// sums + (u - kDotOffset) * x, four products a lane: u of kBits bits, x of 8 with a sign.
template <int kBits>
OCTAVO_INLINE IntVec dot4(IntVec sums, ByteVec u, IntVec x) {
#if defined(OCTAVO_ISA_AVX512_VNNI)
  return bits_as<IntVec>(
      _mm512_dpbusd_epi32(bits_as<__m512i>(sums), bits_as<__m512i>(u), bits_as<__m512i>(x)));
#elif defined(OCTAVO_MADDUBS)
  const RawVec signed_x = bits_as<RawVec>(x);
  const auto pairs = [&](ByteVec part) { return OCTAVO_MADDUBS(bits_as<RawVec>(part), signed_x); };
  if constexpr (kBits < 8) {
    return sums + bits_as<IntVec>(OCTAVO_MADD(pairs(u), OCTAVO_SET16(1)));
  }
  // Two products of 8 and 8 bits can overflow 16: the upper bit counts apart, as 2 * 64.
  const IntVec lower = bits_as<IntVec>(OCTAVO_MADD(pairs(u & uint8_t{127}), OCTAVO_SET16(1)));
  const ByteVec top = (bits_as<ByteVec>(bits_as<UintVec>(u) >> 1)) & uint8_t{64};
  return sums + lower + bits_as<IntVec>(OCTAVO_MADD(pairs(top), OCTAVO_SET16(2)));
#elif defined(OCTAVO_ISA_NEON)
  const int8x16_t weights = bits_as<int8x16_t>(kBits == 8 ? u ^ uint8_t{128} : u);
  const int8x16_t values = bits_as<int8x16_t>(x);
#if defined(OCTAVO_ISA_NEON_DOT)
  return bits_as<IntVec>(vdotq_s32(bits_as<int32x4_t>(sums), weights, values));
#else
  // The sums of two products of 8 bits fit 16.
  const int16x8_t low = vmull_s8(vget_low_s8(weights), vget_low_s8(values));
  const int16x8_t high = vmull_high_s8(weights, values);
  return bits_as<IntVec>(vpadalq_s16(bits_as<int32x4_t>(sums), vpaddq_s16(low, high)));
#endif
#else
  for (int j = 0; j < 4; ++j) {
    const IntVec weight = bits_as<IntVec>((bits_as<UintVec>(u) >> (8 * j)) & 255u);
    const IntVec value = bits_as<IntVec>(bits_as<UintVec>(x) << (24 - 8 * j)) >> 24;
    sums = sums + weight * value;
  }
  return sums;
#endif
}

// The tile's sums over groups [G, end) of a block: sums [R][P][V].
template <class Blocks, int G, int kEnd, int R, int V, int P>
OCTAVO_INLINE void sum_groups(const uint8_t* block, int64_t panel_stride, int vec,
                              const QuantizedRows& x, int64_t first_group,
                              IntVec (&sums)[R][P][V]) {
  ByteVec weights[P][V];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      weights[p][v] = Blocks::template quants<G>(block + p * panel_stride, vec + v);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const IntVec values = x.group(r, first_group + G);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        sums[r][p][v] = dot4<Blocks::kTile.bits>(sums[r][p][v], weights[p][v], values);
      }
    }
  }
  if constexpr (G + 1 < kEnd) {
    sum_groups<Blocks, G + 1, kEnd, R, V, P>(block, panel_stride, vec, x, first_group, sums);
  }
}

// One run of input features with a scale of its own, S of a block: totals += d * scale * sums.
template <int S, class Blocks, int R, int V, int P>
OCTAVO_INLINE void add_run(const Blocks& blocks, int64_t panel_stride, int vec,
                           const QuantizedRows& x, int64_t index, Vec (&totals)[R][P][V]) {
  constexpr TileForm kForm = Blocks::kTile;
  constexpr int kRuns = kForm.scales > 1 ? kForm.scales : 1;
  constexpr int kGroups = static_cast<int>(kGroupsPerBlock) / kRuns;
  IntVec sums[R][P][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    int32_t start = 0;
    if constexpr (!kForm.has_minimum) {
      start = x.count(r, 2 * index + S);
      if (kRuns == 1) start += x.count(r, 2 * index + 1);
      start *= kDotOffset<kForm.bits> - blocks.offset();
    }
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[r][p][v] = IntVec{} + start;
    }
  }
  sum_groups<Blocks, S * kGroups, (S + 1) * kGroups, R, V, P>(
      blocks.block(index), panel_stride, vec, x, index * kGroupsPerBlock, sums);
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      Vec d{};
      if constexpr (kForm.scales != 0) d = blocks.scale(index, p * panel_stride, S, vec + v);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Vec product = __builtin_convertvector(sums[r][p][v], Vec);
        const Vec x_scale = broadcast(x.scale(r, index));
        totals[r][p][v] = fma(product, kForm.scales == 0 ? x_scale : d * x_scale, totals[r][p][v]);
      }
    }
  }
  if constexpr (S + 1 < kRuns) {
    add_run<S + 1, Blocks, R, V, P>(blocks, panel_stride, vec, x, index, totals);
  }
}

// totals += minimum * (the sum of x in the block)
template <class Blocks, int R, int V, int P>
OCTAVO_INLINE void add_minimum(const Blocks& blocks, int64_t panel_stride, int vec,
                               const QuantizedRows& x, int64_t index, Vec (&totals)[R][P][V]) {
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const Vec minimum = blocks.scale(index, p * panel_stride, 1, vec + v);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        totals[r][p][v] = fma(minimum, broadcast(x.sum(r, index)), totals[r][p][v]);
      }
    }
  }
}

// Blocks [begin, end) of input features for R rows, V vectors of each of P panels; out: totals,
// [R][32] at the first vector.
template <class Blocks, int R, int V, int P>
OCTAVO_INLINE void integer_tile(const Blocks& blocks, int64_t panel_stride, int vec,
                                const QuantizedRows& x, int64_t begin, int64_t end,
                                float* __restrict out, int64_t out_panel_stride) {
  Vec totals[R][P][V];
  const auto at = [&](int r, int p, int v) {
    return out + p * out_panel_stride + r * kPanelWidth + (vec + v) * kLanes;
  };
#pragma GCC unroll 32
  for (int i = 0; i < R * P * V; ++i) {
    totals[i / (P * V)][i / V % P][i % V] = load(at(i / (P * V), i / V % P, i % V));
  }
  for (int64_t index = begin; index < end; ++index) {
    add_run<0, Blocks, R, V, P>(blocks, panel_stride, vec, x, index, totals);
    if constexpr (Blocks::kTile.has_minimum) {
      add_minimum<Blocks, R, V, P>(blocks, panel_stride, vec, x, index, totals);
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < R * P * V; ++i) {
    store(at(i / (P * V), i / V % P, i % V), totals[i / (P * V)][i / V % P][i % V]);
  }
}

// Panels [0, panels) for R rows, as they lie in the weight.
template <WeightForm kForm, int R>
void packed_panels(const uint8_t* weight, int64_t panel_stride, int64_t panels,
                   const QuantizedRows& x, float* out, int64_t out_panel_stride) {
  using Blocks = PackedBlocks<kForm>;
  constexpr TileShape kShape = integer_shape(R);
  const int64_t blocks = x.in / kQuantBlock;
  int64_t panel = 0;
  if constexpr (kShape.panels > 1) {
    for (; panel + kShape.panels <= panels; panel += kShape.panels) {
      integer_tile<Blocks, R, kShape.vecs, kShape.panels>(
          {weight + panel * panel_stride}, panel_stride, 0, x, 0, blocks,
          out + panel * out_panel_stride, out_panel_stride);
    }
  }
  for (; panel < panels; ++panel) {
    for (int vec = 0; vec < kPanelVecs; vec += kShape.vecs) {
      integer_tile<Blocks, R, kShape.vecs, 1>({weight + panel * panel_stride}, panel_stride, vec, x,
                                              0, blocks, out + panel * out_panel_stride,
                                              out_panel_stride);
    }
  }
}

// One panel for R rows, unpacked.
template <TileForm kForm, int R>
void unpacked_tile(const UnpackedBlocks<kForm>& blocks, const QuantizedRows& x, int64_t end,
                   float* out) {
  constexpr int kVecs = integer_shape(R).vecs;
  for (int vec = 0; vec < kPanelVecs; vec += kVecs) {
    integer_tile<UnpackedBlocks<kForm>, R, kVecs, 1>(blocks, 0, vec, x, blocks.begin, end, out, 0);
  }
}

template <TileForm kForm>
OCTAVO_INLINE void unpacked_rows(int64_t rows, const UnpackedBlocks<kForm>& blocks,
                                 const QuantizedRows& x, int64_t end, float* out) {
  // Heights that more than kMaxIntegerRows rows are divided into.
  switch (rows) {
#if defined(OCTAVO_ISA_AVX512)
    case 3: return unpacked_tile<kForm, 3>(blocks, x, end, out);
    case 4: return unpacked_tile<kForm, 4>(blocks, x, end, out);
    case 5: return unpacked_tile<kForm, 5>(blocks, x, end, out);
    case 6: return unpacked_tile<kForm, 6>(blocks, x, end, out);
#else
    case 1: return unpacked_tile<kForm, 1>(blocks, x, end, out);
    case 2: return unpacked_tile<kForm, 2>(blocks, x, end, out);
#endif
#if defined(OCTAVO_ISA_NEON)
    case 3: return unpacked_tile<kForm, 3>(blocks, x, end, out);
    case 4: return unpacked_tile<kForm, 4>(blocks, x, end, out);
#endif
  }
}

template <WeightForm kForm>
OCTAVO_INLINE void packed_tile(int64_t rows, const uint8_t* weight, int64_t panel_stride,
                               int64_t panels, const QuantizedRows& x, float* out, int64_t stride) {
  switch (rows) {
    case 1: return packed_panels<kForm, 1>(weight, panel_stride, panels, x, out, stride);
    case 2: return packed_panels<kForm, 2>(weight, panel_stride, panels, x, out, stride);
#if defined(OCTAVO_ISA_AVX512) || defined(OCTAVO_ISA_NEON)
    case 3: return packed_panels<kForm, 3>(weight, panel_stride, panels, x, out, stride);
    case 4: return packed_panels<kForm, 4>(weight, panel_stride, panels, x, out, stride);
#endif
#if defined(OCTAVO_ISA_AVX512)
    case 5: return packed_panels<kForm, 5>(weight, panel_stride, panels, x, out, stride);
    case 6: return packed_panels<kForm, 6>(weight, panel_stride, panels, x, out, stride);
#endif
  }
}

template <WeightForm kForm>
OCTAVO_INLINE void packed_rows(int64_t rows, const uint8_t* weight, int64_t panel_stride,
                               int64_t panels, const QuantizedRows& x, float* out) {
  const int64_t tiles = (rows + kMaxIntegerRows - 1) / kMaxIntegerRows;
  const int64_t stride = rows * kPanelWidth;
  if (tiles == 1) return packed_tile<kForm>(rows, weight, panel_stride, panels, x, out, stride);
  for (int64_t panel = 0; panel < panels; ++panel, weight += panel_stride, out += stride) {
    for (int64_t tile = 0; tile < tiles; ++tile) {  // of nearly equal heights
      const int64_t row = rows * tile / tiles, row_end = rows * (tile + 1) / tiles;
      packed_tile<kForm>(row_end - row, weight, panel_stride, 1,
                         {x.data + row * x.stride, x.stride, x.in}, out + row * kPanelWidth,
                         stride);
    }
  }
}

template <WeightForm kForm>
void accumulate_integers(const LinearTask& task, int64_t first_panel, float* totals) {
  using Unpacked = UnpackedBlocks<tile_form(kForm)>;
  static_assert(kUnpackedBlocks * Unpacked::kBytes <= kInputBlock * kPanelWidth * 4);
  const int64_t rows = task.row_end - task.row_begin;
  const int64_t panels = task.panel_end - task.panel_begin, blocks = task.in / kQuantBlock;
  const auto* weight = static_cast<const uint8_t*>(task.weight) + first_panel * task.panel_bytes;
  const QuantizedRows x{static_cast<const uint8_t*>(task.x) + task.row_begin * task.x_stride,
                        task.x_stride, task.in};
  clear_totals(task, totals);
  if (rows <= max_packed_rows(kForm)) {
    return packed_rows<kForm>(rows, weight, task.panel_bytes, panels, x, totals);
  }
  auto* unpacked = reinterpret_cast<uint8_t*>(task.scratch);
  const int64_t tiles = (rows + kMaxIntegerRows - 1) / kMaxIntegerRows;
  for (int64_t panel = 0; panel < panels; ++panel, weight += task.panel_bytes) {
    for (int64_t begin = 0; begin < blocks; begin += kUnpackedBlocks) {
      const int64_t end = begin + kUnpackedBlocks < blocks ? begin + kUnpackedBlocks : blocks;
      for (int64_t i = begin; i < end; ++i) {
        unpack_block<kForm>({weight}, i, unpacked + (i - begin) * Unpacked::kBytes);
      }
      for (int64_t tile = 0; tile < tiles; ++tile) {  // of nearly equal heights
        const int64_t row = rows * tile / tiles, row_end = rows * (tile + 1) / tiles;
        unpacked_rows<tile_form(kForm)>(row_end - row,
                                        {unpacked, begin, integer_form(kForm).offset},
                                        {x.data + row * x.stride, x.stride, x.in}, end,
                                        totals + (panel * rows + row) * kPanelWidth);
      }
    }
  }
}

template <WeightForm kForm>
void linear_integers(const LinearTask& task) {
  run_panels(task, kMaxIntegerRows, [](const LinearTask& part, int64_t first_panel, float* totals) {
    accumulate_integers<kForm>(part, first_panel, totals);
    if (kForm == WeightForm::kInt8Channel) scale_channels(part, first_panel, totals);
  });
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
