// x * weight^T over panels. Part of kernels.inc, as simd.h.
//
// Every output is the sum, in order, of the sums of kInputBlock products, each taken in order of
// the input feature, whatever the tile: that is what makes its bits independent of the batch.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "linear_kernel.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

inline constexpr int kPanelVecs = static_cast<int>(kPanelWidth) / kLanes;

// Registers of a tile of R rows: `vecs` vectors of each of `panels` panels. Few rows take several
// panels, for independent chains of additions; many rows take part of a panel, to fit.
struct TileShape {
  int vecs;
  int panels;
};
#if defined(OCTAVO_ISA_AVX512)
inline constexpr int kMaxTileRows = 12;
constexpr TileShape tile_shape(int rows) {
  return rows == 1 ? TileShape{2, 4} : rows <= 3 ? TileShape{2, 2} : TileShape{2, 1};
}
#elif defined(OCTAVO_ISA_AVX2)
inline constexpr int kMaxTileRows = 6;
constexpr TileShape tile_shape(int rows) {
  return rows == 1 ? TileShape{4, 2} : rows <= 3 ? TileShape{4, 1} : TileShape{2, 1};
}
#else
inline constexpr int kMaxTileRows = 4;
constexpr TileShape tile_shape(int rows) {
  return rows == 1 ? TileShape{8, 1} : rows == 2 ? TileShape{4, 1} : TileShape{2, 1};
}
#endif

// One block of input features of a tile: totals += the block's sums.
//   w: [count][32] at the first vector, panels at w_panel_stride; x: [R][count] at x_stride;
//   totals: [R][32] at the first vector, panels at total_panel_stride.
template <class E, int R, int V, int P>
OCTAVO_INLINE void tile_block(const E* __restrict w, int64_t w_panel_stride,
                              const float* __restrict x, int64_t x_stride, int64_t count,
                              float* __restrict totals, int64_t total_panel_stride) {
  Vec sums[R][P][V] = {};
  for (int64_t k = 0; k < count; ++k) {
    Vec weights[P][V];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        weights[p][v] = load(w + p * w_panel_stride + k * kPanelWidth + v * kLanes);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec value = broadcast(x[r * x_stride + k]);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sums[r][p][v] = fma(value, weights[p][v], sums[r][p][v]);
      }
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
          w + panel * w_panel_stride + vec * kLanes, w_panel_stride, x, x_stride, count,
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
#if defined(OCTAVO_ISA_AVX512) || defined(OCTAVO_ISA_AVX2)
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
template <class E>
OCTAVO_INLINE const float* widen_block(const E* block, int64_t count, float* wide) {
  for (int64_t i = 0; i < count * kPanelWidth; i += kLanes) store(wide + i, load(block + i));
  return wide;
}

// totals [panels][rows][32] += x [rows, in] * panels, for the task's rows.
template <class E>
void accumulate_panels(const LinearTask& task, int64_t first_panel, float* totals) {
  const int64_t rows = task.row_end - task.row_begin;
  const int64_t panels = task.panel_end - task.panel_begin;
  const int64_t panel_stride = task.in * kPanelWidth;
  const E* weight = static_cast<const E*>(task.weight) + first_panel * panel_stride;
  const float* x = task.x + task.row_begin * task.x_stride;
  const int64_t tiles = (rows + kMaxTileRows - 1) / kMaxTileRows;
  float* wide = task.scratch;                                // [kInputBlock][32]
  float* packed = task.scratch + kInputBlock * kPanelWidth;  // [rows][kPackedStride]
  for (int64_t begin = 0; begin < task.in; begin += kInputBlock) {
    const int64_t count = task.in - begin < kInputBlock ? task.in - begin : kInputBlock;
    const E* block = weight + begin * kPanelWidth;
    if (rows == 1) {
      tile_panels<E, 1>(block, panel_stride, panels, x + begin, 0, count, totals, kPanelWidth);
      continue;
    }
    pack_rows(x + begin, task.x_stride, rows, count, packed);
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

// The bias of a panel's vector, or 0.
OCTAVO_INLINE Vec load_bias(const float* bias, int64_t column, int64_t left) {
  return bias == nullptr ? Vec{} : load_n(bias + column, left);
}

// activation(totals + bias), or activation(gate) * up, then += residual, into y.
template <bool kGated>
void finish_panels(const LinearTask& task, const float* totals, const float* up_totals) {
  const int64_t rows = task.row_end - task.row_begin;
  const float* up_bias = kGated && task.bias != nullptr ? task.bias + task.out : nullptr;
  for (int64_t panel = task.panel_begin; panel < task.panel_end; ++panel) {
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = ((panel - task.panel_begin) * rows + r) * kPanelWidth;
      const int64_t row = task.row_begin + r;
      for (int64_t v = 0; v < kPanelVecs; ++v) {
        const int64_t column = panel * kPanelWidth + v * kLanes, left = task.out - column;
        if (left <= 0) break;
        Vec value = load(totals + at + v * kLanes) + load_bias(task.bias, column, left);
        value = activate(task.activation, value);
        if constexpr (kGated) {
          value = value * (load(up_totals + at + v * kLanes) + load_bias(up_bias, column, left));
        }
        if (task.residual != nullptr) {
          value = value + load_n(task.residual + row * task.residual_stride + column, left);
        }
        store_n(task.y + row * task.y_stride + column, left, value);
      }
    }
  }
}

template <class E>
void linear(const LinearTask& task) {
  const int64_t rows = task.row_end - task.row_begin;
  const int64_t totals_count = rows * (task.panel_end - task.panel_begin) * kPanelWidth;
  float* totals = task.scratch + kInputBlock * kPanelWidth + rows * kPackedStride;
  const bool gated = task.up_panel != 0;
  __builtin_memset(totals, 0, static_cast<size_t>(totals_count * (gated ? 2 : 1)) * sizeof(float));
  accumulate_panels<E>(task, task.panel_begin, totals);
  if (!gated) return finish_panels<false>(task, totals, nullptr);
  float* up_totals = totals + totals_count;
  accumulate_panels<E>(task, task.panel_begin + task.up_panel, up_totals);
  finish_panels<true>(task, totals, up_totals);
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
