// x * weight^T over panels of integers by AMX, for more rows than integer_kernel.h takes as they
// lie. Part of kernels.inc, as simd.h.
//
// Tiles sum the products of a block as integers, and what follows is, operation by operation, what
// integer_kernel.h does. So the bits are the same, and a few rows can be left to it.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "amx_integer_kernel.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

static_assert(kLanes == kTileRows, "a vector is a row of a tile");

// The kernels of up to this many rows.
inline constexpr int64_t kFewRows = 4;
OCTAVO_INLINE const KernelTable& few_rows_kernels() {
#if defined(OCTAVO_ISA_AMX_MODEL)
  return avx512_kernels();
#else
  return avx512_vnni_kernels();
#endif
}

// Tiles whose sums are made together. Each is of one run: input features that share a scale.
inline constexpr int kRunTiles = 4;
// Sums of kRunTiles tiles, twice: one half is filled while the other is read.
inline constexpr int64_t kSumsBytes = 2 * kRunTiles * kTileRows * kTileBytes;

// Blocks of a panel with numbers that have a sign: each [8][32][4] bytes, then float32 scales.
template <TileForm kForm>
struct SignedBlocks {
  static constexpr int kRuns = kForm.scales > 1 ? kForm.scales : 1;  // of a block
  static constexpr int64_t kScales = kForm.scales + (kForm.has_minimum ? 1 : 0);
  static constexpr int64_t kQuantBytes = kQuantBlock * kPanelWidth;
  static constexpr int64_t kBytes = kQuantBytes + kScales * kPanelWidth * 4;
  const uint8_t* data;
  int64_t first;  // block of the panel

  // The tile of run `run`, counted from the first one's.
  OCTAVO_INLINE const uint8_t* tile(int64_t run, int vec) const {
    return data + run / kRuns * kBytes + run % kRuns * (kQuantBytes / kRuns) + vec * kTileBytes;
  }
  OCTAVO_INLINE Vec scale(int64_t run, int s, int vec) const {
    const uint8_t* scales = data + run / kRuns * kBytes + kQuantBytes + s * kPanelWidth * 4;
    return load(reinterpret_cast<const float*>(scales) + vec * kLanes);
  }
};

template <WeightForm kForm, int G = 0>
OCTAVO_INLINE void unpack_signed_groups(const uint8_t* block, uint8_t* out) {
  constexpr IntegerForm kInteger = integer_form(kForm);
  for (int vec = 0; vec < kPanelVecs; ++vec) {
    const ByteVec quants =
        load_quants<kInteger.bits, G>(block, vec) - static_cast<uint8_t>(kInteger.offset);
    __builtin_memcpy(out + G * 4 * kPanelWidth + vec * kTileBytes, &quants, sizeof quants);
  }
  if constexpr (G + 1 < kGroupsPerBlock) unpack_signed_groups<kForm, G + 1>(block, out);
}

// Blocks [begin, end) of a panel.
template <WeightForm kForm>
OCTAVO_INLINE void unpack_signed(const PackedBlocks<kForm>& blocks, int64_t begin, int64_t end,
                                 uint8_t* out) {
  using Signed = SignedBlocks<tile_form(kForm)>;
  for (int64_t index = begin; index < end; ++index, out += Signed::kBytes) {
    unpack_signed_groups<kForm>(blocks.block(index), out);
    float* scales = reinterpret_cast<float*>(out + Signed::kQuantBytes);
    for (int s = 0; s < Signed::kScales; ++s) {
      for (int vec = 0; vec < kPanelVecs; ++vec) {
        store(scales + s * kPanelWidth + vec * kLanes, blocks.scale(index, 0, s, vec));
      }
    }
  }
}

// Up to kRunTiles runs of a tile of rows and half a panel.
struct RunTask {
  int64_t row;    // first one of the tile
  int64_t begin;  // first one that is new: tiles overlap where rows do not fill the last one
  int64_t end;
  int64_t run;  // counted from the unpacked blocks' first
  int count;
  int vec;
  int32_t* sums;  // [count][kTileRows][16]
};

template <TileForm kForm, int J>
OCTAVO_INLINE void sum_runs(const SignedBlocks<kForm>& blocks, const QuantizedRows& x,
                            const RunTask& task) {
  constexpr int kRuns = SignedBlocks<kForm>::kRuns;
  constexpr int64_t kInputs = kQuantBlock / kRuns;
  constexpr int kA = 4 + J % 2, kB = 6 + J % 2;
  if (J >= task.count) return;
  const int64_t input = blocks.first * kQuantBlock + (task.run + J) * kInputs;
  tile_zero<J>();
  tile_load<kA>(x.data + task.row * x.stride + input, x.stride);
  tile_load<kB>(blocks.tile(task.run + J, task.vec), 4 * kPanelWidth);
  tile_dot_int8<J, kA, kB>();
  tile_store<J>(task.sums + J * kTileRows * kLanes, kTileBytes);
  if constexpr (J + 1 < kRunTiles) sum_runs<kForm, J + 1>(blocks, x, task);
}

// totals [rows][32] += d * scale * sums, and minimum * (the sum of x) after a block's last run.
template <TileForm kForm, int N>
OCTAVO_INLINE void add_runs(const SignedBlocks<kForm>& blocks, const QuantizedRows& x,
                            const RunTask& task, float* totals) {
  constexpr int kRuns = SignedBlocks<kForm>::kRuns;
  Vec d[N], minimum[N];
#pragma GCC unroll 4
  for (int j = 0; j < N; ++j) {
    if (kForm.scales != 0) d[j] = blocks.scale(task.run + j, (task.run + j) % kRuns, task.vec);
    if (kForm.has_minimum) minimum[j] = blocks.scale(task.run + j, 1, task.vec);
  }
  const int64_t first = blocks.first + task.run / kRuns;
  for (int64_t row = task.begin; row < task.end; ++row) {
    float* out = totals + row * kPanelWidth + task.vec * kLanes;
    Vec total = load(out);
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      const int64_t index = first + j / kRuns;
      const Vec product =
          __builtin_convertvector(bits_as<IntVec>(load(reinterpret_cast<const float*>(
                                      task.sums + (j * kTileRows + row - task.row) * kLanes))),
                                  Vec);
      const Vec x_scale = broadcast(x.scale(row, index));
      total = fma(product, kForm.scales == 0 ? x_scale : d[j] * x_scale, total);
      if (kForm.has_minimum) total = fma(minimum[j], broadcast(x.sum(row, index)), total);
    }
    store(out, total);
  }
}

template <TileForm kForm>
OCTAVO_INLINE void finish_runs(const SignedBlocks<kForm>& blocks, const QuantizedRows& x,
                               const RunTask& task, float* totals) {
  switch (task.count) {
    case 1: return add_runs<kForm, 1>(blocks, x, task, totals);
    case 2: return add_runs<kForm, 2>(blocks, x, task, totals);
    case 3: return add_runs<kForm, 3>(blocks, x, task, totals);
    case 4: return add_runs<kForm, 4>(blocks, x, task, totals);
  }
}

// What is read from memory next, asked for piece by piece.
struct Upcoming {
  const uint8_t* data;
  int64_t bytes, pieces;
  int64_t asked = 0, piece = 0;

  OCTAVO_INLINE void ask() {
    const int64_t end = bytes * ++piece / pieces;
    for (; asked < end; asked += 64) __builtin_prefetch(data + asked);
  }
};

// `count` unpacked blocks of a panel for all rows: totals [rows][32] +=. While the vectors of one
// task are summed, the tiles of the next are at work.
template <TileForm kForm>
void multiply_blocks(const SignedBlocks<kForm>& blocks, int64_t count, const QuantizedRows& x,
                     int64_t rows, Upcoming upcoming, int32_t* sums, float* totals) {
  const int64_t height = rows < kTileRows ? rows : kTileRows;
  const int64_t runs = count * SignedBlocks<kForm>::kRuns;
  upcoming.pieces =
      (rows + kTileRows - 1) / kTileRows * kPanelVecs * ((runs + kRunTiles - 1) / kRunTiles);
  RunTask before{};
  int64_t half = 0;
  for (int64_t begin = 0; begin < rows; begin += kTileRows) {
    RunTask task{};
    task.row = begin + height <= rows ? begin : rows - height;
    task.begin = begin;
    task.end = task.row + height;
    for (task.vec = 0; task.vec < kPanelVecs; ++task.vec) {
      for (task.run = 0; task.run < runs; task.run += kRunTiles) {
        task.count = static_cast<int>(runs - task.run < kRunTiles ? runs - task.run : kRunTiles);
        task.sums = sums + half * kRunTiles * kTileRows * kLanes;
        half ^= 1;
        sum_runs<kForm, 0>(blocks, x, task);
        upcoming.ask();
        if (before.count != 0) finish_runs<kForm>(blocks, x, before, totals);
        before = task;
      }
    }
  }
  finish_runs<kForm>(blocks, x, before, totals);
}

OCTAVO_INLINE void configure_integers(int64_t rows, int64_t runs) {
  const int64_t height = rows < kTileRows ? rows : kTileRows;
  TileConfig config;
  config.set(0, 4, height, kTileBytes);
  config.set(4, 6, height, kQuantBlock / runs);
  config.set(6, 8, kGroupsPerBlock / runs, kTileBytes);
  tile_configure(config);
}

template <WeightForm kForm>
void accumulate_integer_tiles(const LinearTask& task, int64_t first_panel, float* totals) {
  constexpr IntegerForm kInteger = integer_form(kForm);
  using Signed = SignedBlocks<tile_form(kForm)>;
  static_assert(kUnpackedBlocks * Signed::kBytes + kSumsBytes <= kInputBlock * kPanelWidth * 4);
  const int64_t rows = task.row_end - task.row_begin;
  const int64_t panels = task.panel_end - task.panel_begin, blocks = task.in / kQuantBlock;
  const auto* weight = static_cast<const uint8_t*>(task.weight) + first_panel * task.panel_bytes;
  const QuantizedRows x{static_cast<const uint8_t*>(task.x) + task.row_begin * task.x_stride,
                        task.x_stride, task.in};
  auto* sums = reinterpret_cast<int32_t*>(task.scratch);
  auto* unpacked = reinterpret_cast<uint8_t*>(task.scratch) + kSumsBytes;
  clear_totals(task, totals);
  configure_integers(rows, Signed::kRuns);
  for (int64_t panel = 0; panel < panels; ++panel, weight += task.panel_bytes) {
    for (int64_t begin = 0; begin < blocks; begin += kUnpackedBlocks) {
      const int64_t end = begin + kUnpackedBlocks < blocks ? begin + kUnpackedBlocks : blocks;
      unpack_signed<kForm>({weight}, begin, end, unpacked);
      // Panels and their blocks follow each other.
      const Upcoming upcoming{weight + kInteger.block_place(end) - kInteger.head_bytes(),
                              kUnpackedBlocks * kInteger.block_bytes() + kInteger.head_bytes()};
      multiply_blocks<tile_form(kForm)>({unpacked, begin}, end - begin, x, rows, upcoming, sums,
                                        totals + panel * rows * kPanelWidth);
    }
  }
  tile_release();
}

template <WeightForm kForm>
void linear_integer_tiles(const LinearTask& task) {
  if (task.row_end - task.row_begin <= kFewRows) {
    return few_rows_kernels().linear[static_cast<int>(kForm)](task);
  }
  run_linear(task, [](const LinearTask& part, int64_t first_panel, float* totals) {
    accumulate_integer_tiles<kForm>(part, first_panel, totals);
    if (kForm == WeightForm::kInt8Channel) scale_channels(part, first_panel, totals);
  });
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
