// A product of matrices without tensor cores and without demands on shapes or alignment: what is
// left where cuBLASLt has no algorithm. Step thread; asynchronous on `stream`.
#pragma once

#include <cuda_runtime_api.h>

#include "tensor/tensor.h"

namespace octavo::cuda {

// out = x * weight^T
struct PlainGemm {
  const void* weight;  // [out_features, in_features] of x's dtype, contiguous
  Tensor x;            // [tokens, in_features]
  Tensor out;          // [tokens, out_features], x's dtype or float32
};
void launch_plain_gemm(const PlainGemm& args, cudaStream_t stream);

}  // namespace octavo::cuda
