// What every linear kernel does around its sums: the shapes of tiles in registers, and what becomes
// of the totals. Part of kernels.inc, as simd.h.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "linear_task.h is part of kernels.inc"
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
#elif defined(OCTAVO_ISA_NEON)
inline constexpr int kMaxTileRows = 6;
constexpr TileShape tile_shape(int rows) { return rows <= 2 ? TileShape{8, 1} : TileShape{4, 1}; }
#else
inline constexpr int kMaxTileRows = 4;
constexpr TileShape tile_shape(int rows) {
  return rows == 1 ? TileShape{8, 1} : rows == 2 ? TileShape{4, 1} : TileShape{2, 1};
}
#endif

// Elements from one vector of a panel to the next: bfloat16 stands in pairs.
template <class E>
inline constexpr int64_t kVecElements = kLanes;
template <>
inline constexpr int64_t kVecElements<BFloat16> = 2 * kLanes;

// The weights of input feature k, or of the upper one of a pair, in one vector.
template <class E, bool kUpper>
OCTAVO_INLINE Vec load_weights(const E* w) {
  if constexpr (sizeof(E) == sizeof(BFloat16) && kVecElements<E> != kLanes) {
    const UintVec pairs = bits_as<UintVec>(load(reinterpret_cast<const float*>(w)));
    return bits_as<Vec>(kUpper ? pairs & 0xffff0000u : pairs << 16);
  } else {
    return load(w);
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

// Where the totals of a task are in its scratch.
OCTAVO_INLINE float* task_totals(const LinearTask& task) {
  return task.scratch + kInputBlock * kPanelWidth + (task.row_end - task.row_begin) * kPackedStride;
}

// The number of totals of a task, and all of them 0.
OCTAVO_INLINE int64_t totals_count(const LinearTask& task) {
  return (task.row_end - task.row_begin) * (task.panel_end - task.panel_begin) * kPanelWidth;
}
OCTAVO_INLINE void clear_totals(const LinearTask& task, float* totals) {
  __builtin_memset(totals, 0, static_cast<size_t>(totals_count(task)) * sizeof(float));
}

// accumulate(task, first_panel, totals): totals [panels][rows][32] = x * panels.
template <class Accumulate>
OCTAVO_INLINE void run_linear(const LinearTask& task, const Accumulate& accumulate) {
  float* totals = task_totals(task);
  accumulate(task, task.panel_begin, totals);
  if (task.up_panel == 0) return finish_panels<false>(task, totals, nullptr);
  float* up_totals = totals + totals_count(task);
  accumulate(task, task.panel_begin + task.up_panel, up_totals);
  finish_panels<true>(task, totals, up_totals);
}

// The same, a panel at a time where there are more rows than `few`: the totals of many rows and
// several panels would leave the first cache before they are finished.
template <class Accumulate>
OCTAVO_INLINE void run_panels(const LinearTask& task, int64_t few, const Accumulate& accumulate) {
  if (task.row_end - task.row_begin <= few) return run_linear(task, accumulate);
  LinearTask one = task;
  for (one.panel_begin = task.panel_begin; one.panel_begin < task.panel_end; ++one.panel_begin) {
    one.panel_end = one.panel_begin + 1;
    run_linear(one, accumulate);
  }
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
