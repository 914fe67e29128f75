// x * weight^T over panels of a floating form, in float32 arithmetic. Part of kernels.inc, as
// simd.h.
//
// Every output is the sum, in order, of the sums of kInputBlock products, each taken in order of
// the input feature, whatever the tile: that is what makes its bits independent of the batch.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "linear_kernel.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

// sums += x [R] at one input feature * its weights [P][V].
template <class E, bool kUpper, int R, int V, int P>
OCTAVO_INLINE void tile_step(const E* __restrict w, int64_t w_panel_stride,
                             const float* __restrict x, int64_t x_stride, Vec (&sums)[R][P][V]) {
  Vec weights[P][V];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      weights[p][v] = load_weights<E, kUpper>(w + p * w_panel_stride + v * kVecElements<E>);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const Vec value = broadcast(x[r * x_stride]);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[r][p][v] = fma(value, weights[p][v], sums[r][p][v]);
    }
  }
}

// One block of input features of a tile: totals += the block's sums.
//   w: the block at the first vector, panels at w_panel_stride; x: [R][count] at x_stride;
//   totals: [R][32] at the first vector, panels at total_panel_stride.
template <class E, int R, int V, int P>
OCTAVO_INLINE void tile_block(const E* __restrict w, int64_t w_panel_stride,
                              const float* __restrict x, int64_t x_stride, int64_t count,
                              float* __restrict totals, int64_t total_panel_stride) {
  Vec sums[R][P][V] = {};
  if constexpr (kVecElements<E> != kLanes) {
    for (int64_t k = 0; k < count; k += 2) {
      const E* pair = w + k * kPanelWidth;
      tile_step<E, false, R, V, P>(pair, w_panel_stride, x + k, x_stride, sums);
      if (k + 1 < count) {
        tile_step<E, true, R, V, P>(pair, w_panel_stride, x + k + 1, x_stride, sums);
      }
    }
  } else {
    for (int64_t k = 0; k < count; ++k) {
      tile_step<E, false, R, V, P>(w + k * kPanelWidth, w_panel_stride, x + k, x_stride, sums);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        float* total = totals + p * total_panel_stride + r * kPanelWidth + v * kLanes;
        store(total, load(total) + sums[r][p][v]);
      }
    }
  }
}

// The panels [0, panels) of one block of input features, for R rows.
template <class E, int R>
void tile_panels(const E* w, int64_t w_panel_stride, int64_t panels, const float* x,
                 int64_t x_stride, int64_t count, float* totals, int64_t total_panel_stride) {
  constexpr TileShape kShape = tile_shape(R);
  // Rows of packed x lie at a constant stride, which the compiler folds into addresses; a single
  // row has none.
  if (R > 1) x_stride = kPackedStride;
  int64_t panel = 0;
  if constexpr (kShape.panels > 1) {
    for (; panel + kShape.panels <= panels; panel += kShape.panels) {
      tile_block<E, R, kShape.vecs, kShape.panels>(
          w + panel * w_panel_stride, w_panel_stride, x, x_stride, count,
          totals + panel * total_panel_stride, total_panel_stride);
    }
  }
  for (; panel < panels; ++panel) {
    for (int vec = 0; vec < kPanelVecs; vec += kShape.vecs) {
      tile_block<E, R, kShape.vecs, 1>(
          w + panel * w_panel_stride + vec * kVecElements<E>, w_panel_stride, x, x_stride, count,
          totals + panel * total_panel_stride + vec * kLanes, total_panel_stride);
    }
  }
}

template <class E>
using TileFunction = void (*)(const E*, int64_t, int64_t, const float*, int64_t, int64_t, float*,
                              int64_t);

// The tile of `rows` rows, 1 to kMaxTileRows.
template <class E>
OCTAVO_INLINE TileFunction<E> tile_function(int64_t rows) {
  static constexpr TileFunction<E> kTiles[] = {
      tile_panels<E, 1>,  tile_panels<E, 2>,  tile_panels<E, 3>, tile_panels<E, 4>,
#if !defined(OCTAVO_ISA_GENERIC)
      tile_panels<E, 5>,  tile_panels<E, 6>,
#endif
#if defined(OCTAVO_ISA_AVX512)
      tile_panels<E, 7>,  tile_panels<E, 8>,  tile_panels<E, 9>, tile_panels<E, 10>,
      tile_panels<E, 11>, tile_panels<E, 12>,
#endif
  };
  static_assert(sizeof(kTiles) / sizeof(kTiles[0]) == kMaxTileRows);
  return kTiles[rows - 1];
}

// x [rows, count] into rows of kPackedStride.
OCTAVO_INLINE void pack_rows(const float* x, int64_t x_stride, int64_t rows, int64_t count,
                             float* packed) {
  for (int64_t r = 0; r < rows; ++r) {
    __builtin_memcpy(packed + r * kPackedStride, x + r * x_stride,
                     static_cast<size_t>(count) * sizeof(float));
  }
}

// A block of a panel, [count][32], as float32: once for all tiles of a task.
OCTAVO_INLINE const float* widen_block(const float* block, int64_t, float*) { return block; }
OCTAVO_INLINE const float* widen_block(const Float16* block, int64_t count, float* wide) {
  for (int64_t i = 0; i < count * kPanelWidth; i += kLanes) store(wide + i, load(block + i));
  return wide;
}
OCTAVO_INLINE const float* widen_block(const BFloat16* block, int64_t count, float* wide) {
  for (int64_t k = 0; k < count; k += 2) {
    for (int64_t v = 0; v < kPanelVecs; ++v) {
      const BFloat16* pairs = block + k * kPanelWidth + v * kVecElements<BFloat16>;
      float* out = wide + k * kPanelWidth + v * kLanes;
      store(out, load_weights<BFloat16, false>(pairs));
      store(out + kPanelWidth, load_weights<BFloat16, true>(pairs));
    }
  }
  return wide;
}

// totals [panels][rows][32] = x [rows, in] * panels, for the task's rows.
template <class E>
void accumulate_panels(const LinearTask& task, int64_t first_panel, float* totals) {
  const int64_t rows = task.row_end - task.row_begin;
  const int64_t panels = task.panel_end - task.panel_begin;
  const int64_t panel_stride = task.panel_bytes / static_cast<int64_t>(sizeof(E));
  const E* weight = static_cast<const E*>(task.weight) + first_panel * panel_stride;
  const int64_t x_stride = task.x_stride / static_cast<int64_t>(sizeof(float));
  const float* x = static_cast<const float*>(task.x) + task.row_begin * x_stride;
  const int64_t tiles = (rows + kMaxTileRows - 1) / kMaxTileRows;
  float* wide = task.scratch;                                // [kInputBlock][32]
  float* packed = task.scratch + kInputBlock * kPanelWidth;  // [rows][kPackedStride]
  clear_totals(task, totals);
  const int64_t size = input_block(rows);
  for (int64_t begin = 0; begin < task.in; begin += size) {
    const int64_t count = task.in - begin < size ? task.in - begin : size;
    const E* block = weight + begin * kPanelWidth;
    if (rows == 1) {
      tile_panels<E, 1>(block, panel_stride, panels, x + begin, 0, count, totals, kPanelWidth);
      continue;
    }
    pack_rows(x + begin, x_stride, rows, count, packed);
    if (tiles == 1) {
      tile_function<E>(rows)(block, panel_stride, panels, packed, kPackedStride, count, totals,
                             rows * kPanelWidth);
      continue;
    }
    for (int64_t panel = 0; panel < panels; ++panel) {
      const float* widened = widen_block(block + panel * panel_stride, count, wide);
      for (int64_t tile = 0; tile < tiles; ++tile) {  // of nearly equal heights
        const int64_t row = rows * tile / tiles, row_end = rows * (tile + 1) / tiles;
        tile_function<float>(row_end - row)(widened, 0, 1, packed + row * kPackedStride,
                                            kPackedStride, count,
                                            totals + (panel * rows + row) * kPanelWidth, 0);
      }
    }
  }
}

template <class E>
void linear(const LinearTask& task) {
  run_linear(task, accumulate_panels<E>);
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
