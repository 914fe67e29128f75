// Fills a weight with the noise of quant/noise.h, bit for bit what quant/decode.cc makes of it.
#pragma once

#include <cstdint>

#include "kernels/vec.cuh"
#include "quant/noise.h"

namespace octavo::cuda {

inline constexpr int kNoiseThreads = 256;
inline constexpr int kNoiseWidth = 8;  // neighbours in a row that a thread makes

struct NoiseParams {
  uint64_t seed;
  void* out;                 // [rows, cols]
  const int32_t* row_order;  // [rows], or null
  int64_t rows, cols;
  int64_t pieces;  // of a row: ceil(cols / kNoiseWidth)
  bool transposed;
  bool vectors;  // rows are whole, aligned pieces
};

// Matrix: the type that a checkpoint would have had it in.
template <typename Matrix, typename Out>
__global__ void __launch_bounds__(kNoiseThreads) noise_kernel(NoiseParams p) {
  const int64_t total = p.rows * p.pieces;
  const int64_t step = int64_t{gridDim.x} * kNoiseThreads;
  for (int64_t i = int64_t{blockIdx.x} * kNoiseThreads + threadIdx.x; i < total; i += step) {
    const int64_t row = i / p.pieces, column = i % p.pieces * kNoiseWidth;
    const int64_t source = p.row_order == nullptr ? row : p.row_order[row];
    const int64_t first = p.transposed ? column * p.rows + source : source * p.cols + column;
    const int64_t stride = p.transposed ? p.rows : 1;
    Out* out = static_cast<Out*>(p.out) + row * p.cols + column;
    float values[kNoiseWidth];
#pragma unroll
    for (int j = 0; j < kNoiseWidth; ++j) {
      values[j] = to_float(
          from_float<Matrix>(noise_value(p.seed, static_cast<uint64_t>(first + j * stride))));
    }
    if (p.vectors) {
#pragma unroll
      for (int j = 0; j < kNoiseWidth; j += kVector<Out>) {
        float part[kVector<Out>];
#pragma unroll
        for (int k = 0; k < kVector<Out>; ++k) part[k] = values[j + k];
        store_vector(out + j, part);
      }
    } else {
#pragma unroll
      for (int j = 0; j < kNoiseWidth; ++j) {
        if (column + j < p.cols) out[j] = from_float<Out>(values[j]);
      }
    }
  }
}

}  // namespace octavo::cuda
