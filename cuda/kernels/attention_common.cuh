// What the attention kernels share: their arguments, the places of a paged cache and of swizzled
// tiles in shared memory, and the softmax of a fragment.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/async_copy.cuh"
#include "kernels/attention_shape.cuh"
#include "kernels/mma.cuh"
#include "kernels/vec.cuh"
#include "launch/attention.h"

namespace octavo::cuda {

// Strides in elements. Query head h reads KV head h / group.
struct AttentionParams {
  const void* q;  // [tokens, heads, head_dim]
  int64_t q_token_stride, q_head_stride;
  void* out;  // [tokens, heads * head_dim]
  int64_t out_token_stride;
  const void* cache;     // [blocks][2][kv_heads][block_size][head_dim]
  int64_t block_stride;  // of the cache's blocks
  int64_t value_offset;  // from a key to its value
  DeviceBatch batch;
  int32_t heads, kv_heads, group, head_dim;
  int32_t window;
  float scale_log2;         // of scores whose exponentials are to the base 2
  int32_t tile_tokens;      // of a QueryTile
  int32_t head_chunk;       // query heads of a KV head that a block of threads takes
  int32_t head_chunks;      // blocks of threads for a group
  bool decode_rows;         // the generic kernel: decode sequences, not tiles
  int32_t min_split_units;  // of a split, at least 1
};

// Bytes from a tile's start to 16-byte chunk `chunk` of `row`, rows of kDim 16-bit numbers. The
// chunk's low bits are mixed with the row's, so that eight rows' same chunk lie in different banks.
template <int kDim>
__host__ __device__ constexpr uint32_t swizzled(uint32_t row, uint32_t chunk) {
  constexpr uint32_t kChunks = kDim / 8;
  constexpr uint32_t kLow = kChunks & (~kChunks + 1);  // the greatest power of two that divides it
  constexpr uint32_t kMixed = kLow < 8 ? kLow : 8;
  return (row * kChunks + (chunk ^ ((row / (8 / kMixed)) & (kMixed - 1)))) * 16;
}

// The address of chunk c + 2 * k of a row, from that of its chunk c of 0 or 1 (a compile-time k
// makes it one instruction). Tiles begin at multiples of 512 bytes, of 16 rows where kDim is 96.
template <int kDim>
__host__ __device__ constexpr uint32_t two_chunks_on(uint32_t address, uint32_t k) {
  static_assert(kDim % 64 == 0 || kDim == 96);
  // Rows of 96 mix the chunk's two lowest bits only, and are multiples of 64 bytes.
  return kDim % 64 == 0 ? address ^ (k * 32) : (address ^ (k % 2 * 32)) + k / 2 * 64;
}

__device__ __forceinline__ float exp2_fast(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// Elements from the cache's start to head 0's key of the first token of a unit.
__device__ __forceinline__ int64_t unit_offset(const AttentionParams& p, const int32_t* table,
                                               int32_t unit) {
  const int32_t size = p.batch.block_size;
  if (size == kUnitTokens) return table[unit] * p.block_stride;
  const int32_t token = unit * kUnitTokens;
  return table[token / size] * p.block_stride + int64_t{token % size} * p.head_dim;
}

// The running softmax of 16 rows in a fragment: this thread's rows are g and g + 8. `total` sums
// this thread's columns only.
struct RowState {
  float largest[2] = {-INFINITY, -INFINITY};  // score, before it is scaled
  float total[2] = {0.0f, 0.0f};
};

// Scores become weights 2^(scale * (score - largest)); earlier sums and outputs are scaled to the
// new largest scores. scale > 0. Rows whose scores are all -infinity leave everything as it is.
template <int kColumns, int kOutputs>
__device__ __forceinline__ void update_softmax(float (&scores)[kColumns][4],
                                               float (&out)[kOutputs][4], RowState& state,
                                               float scale) {
  float shrink[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = state.largest[half];
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      largest = fmaxf(largest, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
    }
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    // Infinity minus itself is no number.
    const float taken = largest == -INFINITY ? 0.0f : __fmul_rn(largest, scale);
    // Rounded as `taken` is: exactly 1 where the largest score stays.
    shrink[half] = exp2_fast(__fsub_rn(__fmul_rn(state.largest[half], scale), taken));
    state.largest[half] = largest;
    float total = 0.0f;
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        scores[n][i] = exp2_fast(fmaf(scores[n][i], scale, -taken));
        total += scores[n][i];
      }
    }
    state.total[half] = fmaf(state.total[half], shrink[half], total);
  }
  // Why a vote: the largest scores seldom change after the first tiles.
  if (!__any_sync(0xffffffffu, shrink[0] != 1.0f || shrink[1] != 1.0f)) return;
#pragma unroll
  for (int n = 0; n < kOutputs; ++n) {
    out[n][0] *= shrink[0];
    out[n][1] *= shrink[0];
    out[n][2] *= shrink[1];
    out[n][3] *= shrink[1];
  }
}

}  // namespace octavo::cuda
