// The tiles of amx_tile.h in software, by Intel's definition of the instructions: what the tests
// run the kernels of AMX on. What the processor would refuse (#UD, #GP) is a trap. The tiles are
// each thread's own. Part of kernels.inc, as simd.h.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "amx_tile_model.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

struct Tiles {
  TileConfig config;
  bool configured = false;
  alignas(64) uint8_t data[8][kTileRows][kTileBytes];

  static OCTAVO_INLINE void require(bool legal) {
    if (!legal) __builtin_trap();
  }
  // The number of a tile that may be used.
  OCTAVO_INLINE int usable(int tile) const {
    require(configured && config.rows[tile] != 0 && config.row_bytes[tile] != 0);
    return tile;
  }
  // The legal shapes of c += a * b with four bytes of a for each row of b.
  OCTAVO_INLINE void require_product(int c, int a, int b) const {
    require(usable(c) != usable(a) && c != usable(b) && a != b);
    require(config.rows[c] == config.rows[a] && config.row_bytes[c] == config.row_bytes[b]);
    require(config.row_bytes[a] == 4 * config.rows[b]);
  }
};
static thread_local Tiles tile_state;

OCTAVO_INLINE void tile_configure(const TileConfig& config) {
  Tiles::require(config.palette == 1 && config.start_row == 0);
  for (const uint8_t byte : config.reserved) Tiles::require(byte == 0);
  for (int tile = 0; tile < 16; ++tile) {
    const int rows = config.rows[tile], bytes = config.row_bytes[tile];
    Tiles::require(rows <= kTileRows && bytes <= kTileBytes && bytes % 4 == 0);
    Tiles::require(tile < 8 ? (rows == 0) == (bytes == 0) : rows == 0 && bytes == 0);
  }
  tile_state.config = config;
  tile_state.configured = true;
  __builtin_memset(tile_state.data, 0, sizeof tile_state.data);
}
OCTAVO_INLINE void tile_release() { tile_state.configured = false; }

template <int T>
OCTAVO_INLINE void tile_zero() {
  __builtin_memset(tile_state.data[tile_state.usable(T)], 0, sizeof tile_state.data[T]);
}
template <int T>
OCTAVO_INLINE void tile_load(const void* base, int64_t stride) {
  tile_zero<T>();
  for (int row = 0; row < tile_state.config.rows[T]; ++row) {
    __builtin_memcpy(tile_state.data[T][row], static_cast<const uint8_t*>(base) + row * stride,
                     tile_state.config.row_bytes[T]);
  }
}
template <int T>
OCTAVO_INLINE void tile_store(void* base, int64_t stride) {
  for (int row = 0; row < tile_state.config.rows[tile_state.usable(T)]; ++row) {
    __builtin_memcpy(static_cast<uint8_t*>(base) + row * stride, tile_state.data[T][row],
                     tile_state.config.row_bytes[T]);
  }
}

// Numbers below the least normal one are 0, before and after each operation.
OCTAVO_INLINE Vec flush(Vec v) {
  const Vec size = bits_as<Vec>(bits_as<UintVec>(v) & 0x7fffffffu);
  return select(size < broadcast(0x1p-126f), bits_as<Vec>(bits_as<UintVec>(v) & 0x80000000u), v);
}
// One of each pair of bfloat16: the one in the lower half, or in the upper one.
OCTAVO_INLINE Vec lower_halves(Vec pairs) {
  return flush(bits_as<Vec>(bits_as<UintVec>(pairs) << 16));
}
OCTAVO_INLINE Vec upper_halves(Vec pairs) {
  return flush(bits_as<Vec>(bits_as<UintVec>(pairs) & 0xffff0000u));
}

// The products of even and of odd places are summed apart, from 0; the two sums meet, and only then
// join the tile.
template <int C, int A, int B>
OCTAVO_INLINE void tile_dot_bfloat16() {
  tile_state.require_product(C, A, B);
  static_assert(kLanes == kTileBytes / 4);
  for (int row = 0; row < tile_state.config.rows[C]; ++row) {
    Vec even{}, odd{};
    for (int k = 0; k < tile_state.config.rows[B]; ++k) {
      float pair;
      __builtin_memcpy(&pair, tile_state.data[A][row] + 4 * k, sizeof pair);
      const Vec b = load(reinterpret_cast<const float*>(tile_state.data[B][k]));
      const Vec a = bits_as<Vec>(UintVec{} + float_bits(pair));
      even = flush(fma(lower_halves(a), lower_halves(b), even));
      odd = flush(fma(upper_halves(a), upper_halves(b), odd));
    }
    float* c = reinterpret_cast<float*>(tile_state.data[C][row]);
    store(c, flush(flush(load(c)) + flush(even + odd)));
    __builtin_memset(tile_state.data[C][row] + tile_state.config.row_bytes[C], 0,
                     static_cast<size_t>(kTileBytes - tile_state.config.row_bytes[C]));
  }
}

template <int C, int A, int B>
OCTAVO_INLINE void tile_dot_int8() {
  tile_state.require_product(C, A, B);
  for (int row = 0; row < tile_state.config.rows[C]; ++row) {
    int32_t c[kTileBytes / 4];
    __builtin_memcpy(c, tile_state.data[C][row], sizeof c);
    const int8_t* a = reinterpret_cast<const int8_t*>(tile_state.data[A][row]);
    for (int k = 0; k < tile_state.config.rows[B]; ++k) {
      const int8_t* b = reinterpret_cast<const int8_t*>(tile_state.data[B][k]);
      for (int n = 0; n < tile_state.config.row_bytes[C] / 4; ++n) {
        for (int i = 0; i < 4; ++i) c[n] += a[4 * k + i] * b[4 * n + i];
      }
    }
    __builtin_memcpy(tile_state.data[C][row], c, sizeof c);
  }
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
