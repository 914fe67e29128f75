// skinny.cuh for float32, without tensor cores: a warp makes two rows of the weight, or a gate and
// its up, times up to kTokens tokens.
#pragma once

#include "kernels/reduce.cuh"
#include "kernels/skinny.cuh"

namespace octavo::cuda {

inline constexpr int kFloatPieces = 4;  // 16-byte pieces of a row that a thread has in flight

__device__ __forceinline__ float dot4(const float4& a, const float4& b, float sum) {
  sum = fmaf(a.x, b.x, sum);
  sum = fmaf(a.y, b.y, sum);
  sum = fmaf(a.z, b.z, sum);
  return fmaf(a.w, b.w, sum);
}

// Both rows' next pieces, from element `k` of this lane on; zeros past the end.
__device__ __forceinline__ void load_rows(const float* const (&rows)[2], int k, int in,
                                          float4 (&out)[2][kFloatPieces]) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
#pragma unroll
    for (int i = 0; i < kFloatPieces; ++i) {
      const int at = k + 128 * i;
      out[row][i] = at < in ? *reinterpret_cast<const float4*>(rows[row] + at)
                            : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
  }
}

// Launched with kSkinnyThreads threads; a warp has columns 2 i and 2 i + 1, or i of gate and up.
template <int kTokens>
__global__ void __launch_bounds__(kSkinnyThreads, 2)
    skinny_float_kernel(const __grid_constant__ SkinnyParams p) {
  const int lane = threadIdx.x % 32;
  const int64_t unit = int64_t{blockIdx.x} * kSkinnyWarps + threadIdx.x / 32;
  const int64_t first = p.gated ? unit : 2 * unit, last = p.out_features - 1;
  if (first > last) return wait_for_earlier_kernels();  // dependent.cuh: nobody ends before them
  const int64_t second = p.gated ? first + p.out_features : (first < last ? first + 1 : last);
  const auto* weight = static_cast<const float*>(p.weight);
  const float* const rows[2] = {weight + first * p.in, weight + second * p.in};
  float4 pieces[2][kFloatPieces];
  load_rows(rows, 4 * lane, p.in, pieces);
  let_next_kernel_begin();
  SkinnyAddends addends[2];
  read_biases(p, first, addends[0]);
  if (!p.gated) read_biases(p, second, addends[1]);
  wait_for_earlier_kernels();

  float sums[2][kTokens] = {};
  for (int k = 4 * lane; k < p.in; k += 128 * kFloatPieces) {
    if (k != 4 * lane) load_rows(rows, k, p.in, pieces);
#pragma unroll
    for (int i = 0; i < kFloatPieces; ++i) {
      const int at = k + 128 * i;
      if (at >= p.in) break;
#pragma unroll
      for (int token = 0; token < kTokens; ++token) {
        if (token >= p.tokens) break;
        const float4 x = *reinterpret_cast<const float4*>(static_cast<const float*>(p.x) +
                                                          token * p.x_stride + at);
        sums[0][token] = dot4(pieces[0][i], x, sums[0][token]);
        sums[1][token] = dot4(pieces[1][i], x, sums[1][token]);
      }
    }
  }
#pragma unroll
  for (int token = 0; token < kTokens; ++token) {
    const float a = warp_sum(sums[0][token]), b = warp_sum(sums[1][token]);
    if (token >= p.tokens || lane != 0) continue;
    read_residual<float>(p, token, first, addends[0]);
    skinny_finish<float>(p, token, first, addends[0], a, b);
    if (p.gated || first == last) continue;
    read_residual<float>(p, token, second, addends[1]);
    skinny_finish<float>(p, token, second, addends[1], b, 0.0f);
  }
}

}  // namespace octavo::cuda
