// x * weight^T over bfloat16 panels by AMX, for any number of rows: x is rounded to bfloat16. Part
// of kernels.inc, as simd.h.
//
// Every output is the sum, in order of the input features, of what one instruction makes of each 32
// of them. Totals that leave their tile and come back are the same bits, so the order of the sums
// is that of the weight's shape alone, whatever the tile and the number of rows.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "amx_bfloat16_kernel.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

// A step is 32 input features: a row of a tile of x, and two tiles of a panel, side by side.
inline constexpr int64_t kStepInputs = 32;
inline constexpr int64_t kStepRowBytes = 2 * kStepInputs;
inline constexpr int64_t kStepBytes = kStepRowBytes * kPanelWidth;
inline constexpr int64_t kPairBytes = 4 * kPanelWidth;  // from one row of a tile to the next
// Steps at a time, so that a tile of rows and a panel fit the first cache together.
inline constexpr int64_t kBlockSteps = 10;
// How far ahead weights are asked for.
inline constexpr int64_t kAheadSteps = 4;

// Some steps of a tile of rows and one panel, or two.
struct TileWork {
  const uint8_t* x;  // at the first row and step
  int64_t x_stride;  // bytes
  int64_t rows;
  const uint8_t* w;      // at the first panel and step
  int64_t panel_stride;  // bytes
  const uint8_t* next;   // what will be read after this
  int64_t steps;
  float* totals;               // [rows][32]
  int64_t total_panel_stride;  // floats
  bool first;                  // totals begin at 0
};

template <int T>
OCTAVO_INLINE void begin_tile(const TileWork& work, const float* totals) {
  work.first ? tile_zero<T>() : tile_load<T>(totals, kPanelWidth * 4);
}

OCTAVO_INLINE void prefetch_step(const TileWork& work, int64_t step) {
  const int64_t ahead = step + kAheadSteps, beyond = ahead - work.steps;
  const uint8_t* line = beyond < 0 ? work.w + ahead * kStepBytes : work.next + beyond * kStepBytes;
#pragma GCC unroll 32
  for (int64_t i = 0; i < kStepBytes; i += 64) __builtin_prefetch(line + i);
}

// 17 to 32 rows and a panel: tiles 0 and 1 are the totals of the upper rows, 2 and 3 of the lower.
OCTAVO_INLINE int64_t upper_rows(int64_t rows) { return (rows + 1) / 2; }
inline void tall_tile(const TileWork& work) {
  const int64_t upper = upper_rows(work.rows);
  float* lower_totals = work.totals + upper * kPanelWidth;
  begin_tile<0>(work, work.totals);
  begin_tile<1>(work, work.totals + kLanes);
  begin_tile<2>(work, lower_totals);
  begin_tile<3>(work, lower_totals + kLanes);
  const uint8_t* lower_x = work.x + upper * work.x_stride;
  for (int64_t step = 0; step < work.steps; ++step) {
    prefetch_step(work, step);
    const uint8_t* w = work.w + step * kStepBytes;
    tile_load<4>(work.x + step * kStepRowBytes, work.x_stride);
    tile_load<6>(w, kPairBytes);
    tile_dot_bfloat16<0, 4, 6>();
    tile_load<7>(w + kTileBytes, kPairBytes);
    tile_dot_bfloat16<1, 4, 7>();
    tile_load<5>(lower_x + step * kStepRowBytes, work.x_stride);
    tile_dot_bfloat16<2, 5, 6>();
    tile_dot_bfloat16<3, 5, 7>();
  }
  tile_store<0>(work.totals, kPanelWidth * 4);
  tile_store<1>(work.totals + kLanes, kPanelWidth * 4);
  tile_store<2>(lower_totals, kPanelWidth * 4);
  tile_store<3>(lower_totals + kLanes, kPanelWidth * 4);
}

// Up to 16 rows and P panels: a pair has more sums on their way at a time.
template <int P>
inline void short_tile(const TileWork& work) {
  float* second = work.totals + work.total_panel_stride;
  begin_tile<0>(work, work.totals);
  begin_tile<1>(work, work.totals + kLanes);
  if constexpr (P == 2) {
    begin_tile<2>(work, second);
    begin_tile<3>(work, second + kLanes);
  }
  TileWork other = work;  // the second panel
  other.w += work.panel_stride;
  other.next += work.panel_stride;
  for (int64_t step = 0; step < work.steps; ++step) {
    prefetch_step(work, step);
    const uint8_t* w = work.w + step * kStepBytes;
    tile_load<4>(work.x + step * kStepRowBytes, work.x_stride);
    tile_load<5>(w, kPairBytes);
    tile_load<6>(w + kTileBytes, kPairBytes);
    tile_dot_bfloat16<0, 4, 5>();
    tile_dot_bfloat16<1, 4, 6>();
    if constexpr (P == 2) {
      prefetch_step(other, step);
      w = other.w + step * kStepBytes;
      tile_load<7>(w, kPairBytes);
      tile_load<5>(w + kTileBytes, kPairBytes);
      tile_dot_bfloat16<2, 4, 7>();
      tile_dot_bfloat16<3, 4, 5>();
    }
  }
  tile_store<0>(work.totals, kPanelWidth * 4);
  tile_store<1>(work.totals + kLanes, kPanelWidth * 4);
  if constexpr (P == 2) {
    tile_store<2>(second, kPanelWidth * 4);
    tile_store<3>(second + kLanes, kPanelWidth * 4);
  }
}

OCTAVO_INLINE void configure_rows(int64_t rows) {
  const bool tall = rows > kTileRows;
  const int64_t upper = tall ? upper_rows(rows) : rows, lower = tall ? rows - upper : rows;
  TileConfig config;
  config.set(0, 2, upper, kTileBytes);
  config.set(2, 4, lower, kTileBytes);
  config.set(4, 5, upper, kTileBytes);
  tall ? config.set(5, 6, lower, kTileBytes) : config.set(5, 6, kTileRows, kTileBytes);
  config.set(6, 8, kTileRows, kTileBytes);
  tile_configure(config);
}

// All panels and steps of a tile of rows, for which `work` has the rows and the first panel.
OCTAVO_INLINE void multiply_rows(TileWork work, int64_t panels, int64_t steps) {
  const uint8_t* const x = work.x;
  const uint8_t* const w = work.w;
  float* const totals = work.totals;
  const int64_t blocks = (steps + kBlockSteps - 1) / kBlockSteps;
  const int64_t pair = work.rows <= kTileRows ? 2 : 1;
  for (int64_t block = 0; block < blocks; ++block) {  // of nearly equal lengths
    const int64_t begin = steps * block / blocks, end = steps * (block + 1) / blocks;
    work.x = x + begin * kStepRowBytes;
    work.steps = end - begin;
    work.first = block == 0;
    for (int64_t panel = 0; panel < panels; panel += pair) {
      const bool last = panel + pair >= panels;
      work.w = w + panel * work.panel_stride + begin * kStepBytes;
      work.next = last ? w + end * kStepBytes : work.w + pair * work.panel_stride;
      work.totals = totals + panel * work.total_panel_stride;
      if (pair == 1) {
        tall_tile(work);
      } else if (panel + 2 <= panels) {
        short_tile<2>(work);
      } else {
        short_tile<1>(work);
      }
    }
  }
}

static void accumulate_tiles(const LinearTask& task, int64_t first_panel, float* totals) {
  const int64_t rows = task.row_end - task.row_begin;
  const int64_t panels = task.panel_end - task.panel_begin;
  const int64_t steps = (task.in + kStepInputs - 1) / kStepInputs;
  const auto* x = static_cast<const uint8_t*>(task.x) + task.row_begin * task.x_stride;
  const int64_t tiles = (rows + 2 * kTileRows - 1) / (2 * kTileRows);
  int64_t configured = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {  // of nearly equal heights
    const int64_t row = rows * tile / tiles, height = rows * (tile + 1) / tiles - row;
    if (height != configured) configure_rows(height);
    configured = height;
    const TileWork work{
        .x = x + row * task.x_stride,
        .x_stride = task.x_stride,
        .rows = height,
        .w = static_cast<const uint8_t*>(task.weight) + first_panel * task.panel_bytes,
        .panel_stride = task.panel_bytes,
        .totals = totals + row * kPanelWidth,
        .total_panel_stride = rows * kPanelWidth};
    multiply_rows(work, panels, steps);
  }
  tile_release();
}

static void linear_tiles(const LinearTask& task) { run_linear(task, accumulate_tiles); }

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
