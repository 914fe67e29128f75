// Sums over the threads of a warp and of a block, in an order that does not change.
#pragma once

namespace octavo::cuda {

inline constexpr unsigned kFullWarp = 0xffffffffu;

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kFullWarp, value, offset);
  }
  return value;
}

// The sum of `value` over the block's threads, for every one of them. blockDim.x is a multiple of
// 32; `partials` [32] is shared memory that no sum in flight uses: two sums in a row take turns.
__device__ __forceinline__ float block_sum(float value, float* partials) {
  value = warp_sum(value);
  const int warps = static_cast<int>(blockDim.x) / 32;
  if (warps == 1) return value;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane == 0) partials[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_sum(lane < warps ? partials[lane] : 0.0f);
}

// The same of two sums at a time.
__device__ __forceinline__ float2 warp_sums(float2 values) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    values.x += __shfl_xor_sync(kFullWarp, values.x, offset);
    values.y += __shfl_xor_sync(kFullWarp, values.y, offset);
  }
  return values;
}
__device__ __forceinline__ float2 block_sums(float2 values, float2* partials) {
  values = warp_sums(values);
  const int warps = static_cast<int>(blockDim.x) / 32;
  if (warps == 1) return values;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane == 0) partials[threadIdx.x / 32] = values;
  __syncthreads();
  return warp_sums(lane < warps ? partials[lane] : make_float2(0.0f, 0.0f));
}

}  // namespace octavo::cuda
