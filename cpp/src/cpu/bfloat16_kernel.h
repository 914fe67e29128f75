// x * weight^T over bfloat16 panels by the dot products of AVX512-BF16 or of NEON: x is rounded to
// bfloat16, sums are float32. Part of kernels.inc, as simd.h.
//
// Every output adds pairs of products in order of the input feature, in blocks of kInputBlock,
// whatever the tile, as linear_kernel.h.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "bfloat16_kernel.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

struct RoundedRows {
  const uint8_t* data;
  int64_t stride;
  OCTAVO_INLINE PairVec pair(int64_t row, int64_t pair) const {
    return broadcast_pair(data + row * stride + 4 * pair);
  }
};

// As tile_block: pairs [begin, end) of input features; w: at pair 0 of the first panel.
template <int R, int V, int P>
OCTAVO_INLINE void dot_tile(const uint8_t* __restrict w, int64_t panel_stride, const RoundedRows& x,
                            int64_t begin, int64_t end, float* __restrict totals,
                            int64_t total_panel_stride) {
  Vec sums[R][P][V] = {};
  for (int64_t pair = begin; pair < end; ++pair) {
    PairVec weights[P][V];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        weights[p][v] =
            load_pairs(w + p * panel_stride + (pair * kPanelVecs + v) * sizeof(PairVec));
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const PairVec value = x.pair(r, pair);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
          sums[r][p][v] = dot_pairs(sums[r][p][v], weights[p][v], value);
        }
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

template <int R>
void dot_panels(const uint8_t* w, int64_t panel_stride, int64_t panels, const RoundedRows& x,
                int64_t begin, int64_t end, float* totals, int64_t total_panel_stride) {
  constexpr TileShape kShape = tile_shape(R);
  int64_t panel = 0;
  if constexpr (kShape.panels > 1) {
    for (; panel + kShape.panels <= panels; panel += kShape.panels) {
      dot_tile<R, kShape.vecs, kShape.panels>(w + panel * panel_stride, panel_stride, x, begin, end,
                                              totals + panel * total_panel_stride,
                                              total_panel_stride);
    }
  }
  for (; panel < panels; ++panel) {
    for (int vec = 0; vec < kPanelVecs; vec += kShape.vecs) {
      dot_tile<R, kShape.vecs, 1>(w + panel * panel_stride + vec * sizeof(PairVec), panel_stride, x,
                                  begin, end, totals + panel * total_panel_stride + vec * kLanes,
                                  total_panel_stride);
    }
  }
}

OCTAVO_INLINE void dot_rows(int64_t rows, const uint8_t* w, int64_t panel_stride, int64_t panels,
                            const RoundedRows& x, int64_t begin, int64_t end, float* totals,
                            int64_t total_panel_stride) {
  using Function = void (*)(const uint8_t*, int64_t, int64_t, const RoundedRows&, int64_t, int64_t,
                            float*, int64_t);
  static constexpr Function kTiles[] = {
      dot_panels<1>, dot_panels<2>, dot_panels<3>, dot_panels<4>,  dot_panels<5>,  dot_panels<6>,
#if defined(OCTAVO_ISA_AVX512)
      dot_panels<7>, dot_panels<8>, dot_panels<9>, dot_panels<10>, dot_panels<11>, dot_panels<12>,
#endif
  };
  static_assert(sizeof(kTiles) / sizeof(kTiles[0]) == kMaxTileRows);
  kTiles[rows - 1](w, panel_stride, panels, x, begin, end, totals, total_panel_stride);
}

void accumulate_dots(const LinearTask& task, int64_t first_panel, float* totals) {
  const int64_t rows = task.row_end - task.row_begin;
  const int64_t panels = task.panel_end - task.panel_begin;
  const auto* weight = static_cast<const uint8_t*>(task.weight) + first_panel * task.panel_bytes;
  const RoundedRows x{static_cast<const uint8_t*>(task.x) + task.row_begin * task.x_stride,
                      task.x_stride};
  const int64_t tiles = (rows + kMaxTileRows - 1) / kMaxTileRows;
  const int64_t pairs = (task.in + 1) / 2;
  clear_totals(task, totals);
  const int64_t size = input_block(rows) / 2;
  for (int64_t begin = 0; begin < pairs; begin += size) {
    const int64_t end = begin + size < pairs ? begin + size : pairs;
    if (tiles == 1) {
      dot_rows(rows, weight, task.panel_bytes, panels, x, begin, end, totals, rows * kPanelWidth);
      continue;
    }
    for (int64_t panel = 0; panel < panels; ++panel) {
      for (int64_t tile = 0; tile < tiles; ++tile) {  // of nearly equal heights
        const int64_t row = rows * tile / tiles, row_end = rows * (tile + 1) / tiles;
        dot_rows(row_end - row, weight + panel * task.panel_bytes, 0, 1,
                 {x.data + row * x.stride, x.stride}, begin, end,
                 totals + (panel * rows + row) * kPanelWidth, 0);
      }
    }
  }
}

void linear_bfloat16(const LinearTask& task) { run_panels(task, kMaxTileRows, accumulate_dots); }

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
