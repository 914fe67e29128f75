// The tiles of AMX: eight registers of up to 16 rows of 64 bytes, and products of them. The kernels
// use no other way to them, so that the tests run the same kernels on a model of tiles in software
// (amx_tile_model.h). Part of kernels.inc, as simd.h.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "amx_tile.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

inline constexpr int kTileRows = 16;
inline constexpr int kTileBytes = 64;  // of a row

// The shapes of the tiles, as the processor reads them.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  OCTAVO_INLINE void set(int first, int end, int64_t tile_rows, int64_t bytes) {
    for (int tile = first; tile < end; ++tile) {
      rows[tile] = static_cast<uint8_t>(tile_rows);
      row_bytes[tile] = static_cast<uint16_t>(bytes);
    }
  }
};
static_assert(sizeof(TileConfig) == 64);

}  // namespace octavo::OCTAVO_ISA_NAMESPACE

#if defined(OCTAVO_ISA_AMX_MODEL)
#include "cpu/amx_tile_model.h"
#else

// Assembly, for the compilers' own functions hide from them what memory the instructions touch (gcc
// 12 drops the stores to a configuration), and take no number of a tile that a template computes.
namespace octavo::OCTAVO_ISA_NAMESPACE {

// Takes effect until tile_release; all tiles become 0.
OCTAVO_INLINE void tile_configure(const TileConfig& config) {
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
}
// Leaves the tiles unused, so that a switch of threads need not save them.
OCTAVO_INLINE void tile_release() { __asm__ volatile("tilerelease" ::); }

template <int T>
OCTAVO_INLINE void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(T));
}
// Rows of a tile at a stride of bytes.
template <int T>
OCTAVO_INLINE void tile_load(const void* base, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(base), "r"(stride), "i"(T) : "memory");
}
template <int T>
OCTAVO_INLINE void tile_store(void* base, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(base), "r"(stride), "i"(T) : "memory");
}

// c [rows][16] float32 += a [rows][k][2] * b [k][16][2], of bfloat16.
template <int C, int A, int B>
OCTAVO_INLINE void tile_dot_bfloat16() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}
// c [rows][16] int32 += a [rows][k][4] * b [k][16][4], of int8.
template <int C, int A, int B>
OCTAVO_INLINE void tile_dot_int8() {
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
#endif  // OCTAVO_ISA_AMX_MODEL
