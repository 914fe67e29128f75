// out = x * weight^T by tiles of 16 x 16 in shared memory, float32 sums in the order of k.
#pragma once

#include <cstdint>

#include "kernels/vec.cuh"

namespace octavo::cuda {

inline constexpr int kPlainTile = 16;

struct PlainGemmParams {
  const void* weight;  // [out_features, in]
  const void* x;       // [tokens, in]
  void* out;           // [tokens, out_features]
  int64_t x_stride, out_stride;
  int64_t tokens, in, out_features;
};

// blockIdx.x counts tiles along out_features, blockIdx.y along tokens, in turns of gridDim.y.
template <typename T, typename Out>
__global__ void __launch_bounds__(kPlainTile* kPlainTile) plain_gemm_kernel(PlainGemmParams p) {
  __shared__ float x[kPlainTile][kPlainTile + 1];  // [token][k]
  __shared__ float w[kPlainTile][kPlainTile + 1];  // [feature][k]
  const int column = static_cast<int>(threadIdx.x), row = static_cast<int>(threadIdx.y);
  const int64_t feature = int64_t{blockIdx.x} * kPlainTile;
  for (int64_t token = int64_t{blockIdx.y} * kPlainTile; token < p.tokens;
       token += int64_t{gridDim.y} * kPlainTile) {
    float sum = 0.0f;
    for (int64_t k = 0; k < p.in; k += kPlainTile) {
      const bool inside = k + column < p.in;
      x[row][column] =
          inside && token + row < p.tokens
              ? to_float(static_cast<const T*>(p.x)[(token + row) * p.x_stride + k + column])
              : 0.0f;
      w[row][column] =
          inside && feature + row < p.out_features
              ? to_float(static_cast<const T*>(p.weight)[(feature + row) * p.in + k + column])
              : 0.0f;
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kPlainTile; ++i) sum = fmaf(x[row][i], w[column][i], sum);
      __syncthreads();
    }
    if (token + row < p.tokens && feature + column < p.out_features) {
      static_cast<Out*>(p.out)[(token + row) * p.out_stride + feature + column] =
          from_float<Out>(sum);
    }
  }
}

}  // namespace octavo::cuda
