// The sizes of the attention kernels' tiles, which host code plans with: plain C++, no device code.
#pragma once

#include <cstdint>

namespace octavo::cuda {

inline constexpr int kUnitTokens = 16;  // keys that lie together: fast kernels want whole units

// Head dimensions of the tensor cores' kernels: others are padded with zeros to the next of these.
constexpr int padded_head_dim(int head_dim) {
  return head_dim <= 64 ? 64 : head_dim <= 96 ? 96 : head_dim <= 128 ? 128 : 256;
}

// A block of threads of the prefill kernel: rows are pairs of a token and a query head.
template <int kDim>
struct PrefillShape {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  // Two row blocks of 16 a warp halve the reads of shared memory; with 256 dimensions their sums do
  // not fit in registers.
  static constexpr int kRowBlocks = kDim <= 128 ? 2 : 1;
  static constexpr int kRows = kWarps * kRowBlocks * 16;
  static constexpr int kKeys = kDim <= 128 ? 64 : 32;
  static constexpr int kStages = 2;
  static constexpr int kCopyThreads = kDim == 96 ? 96 : kThreads;  // whole rows at a time
  static constexpr int kBlocksPerProcessor = 2;
  static constexpr int kSharedBytes = (kRows + kStages * 2 * kKeys) * kDim * 2;
};

constexpr int prefill_rows(int head_dim) {
  return head_dim <= 128 ? PrefillShape<128>::kRows : PrefillShape<256>::kRows;
}

// A block of threads of the decode kernel: up to 16 query heads of a KV head, each warp by itself
// on every kWarps-th unit of keys.
template <int kDim>
struct DecodeShape {
  static constexpr int kHeads = 16;
  static constexpr int kWarps = kDim <= 128 ? 4 : 2;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kStages = 3;
  static constexpr int kUnitBytes = kUnitTokens * kDim * 2;  // of keys, and as many of values
  static constexpr int kWarpBytes = kStages * 2 * kUnitBytes;
  static constexpr int kSharedBytes = kWarps * kWarpBytes;
};

// Heads times splits whose weights the last block of a decode sequence keeps in shared memory.
inline constexpr int kMaxCombined = 8192;
static_assert(kMaxCombined * 4 <= DecodeShape<64>::kSharedBytes);

// A block of threads of the generic kernel.
inline constexpr int kGenericWarps = 8;
inline constexpr int kGenericRows = 4;
inline constexpr int kGenericKeys = 8;  // of a warp at a time
inline constexpr int kGenericTileTokens = 16;

inline constexpr int kMaxHeadDim = 256;

}  // namespace octavo::cuda
