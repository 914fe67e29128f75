// Random weights (quant/noise.h), made where they are wanted. Used while a model is loaded;
// asynchronous on `stream`.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "tensor/dtype.h"

namespace octavo::cuda {

// out[i][j] = noise of the matrix's element [row_order[i]][j], or of [j][row_order[i]] where it is
// transposed, rounded to the matrix's dtype and then to out's.
struct NoiseMatrix {
  uint64_t seed;
  DType matrix_dtype;
  void* out;  // [rows, cols], contiguous
  DType out_dtype;
  int64_t rows, cols;
  const int32_t* row_order;  // device memory [rows], or null: in order
  bool transposed;           // the matrix is [cols, rows]
};
void launch_noise(const NoiseMatrix& args, cudaStream_t stream);

}  // namespace octavo::cuda
