// CUDA's return codes become exceptions of Octavo's.
#pragma once

#include <cuda_runtime_api.h>

#include "base/check.h"

namespace octavo::cuda {

// Throws OutOfMemory where the device has no more memory, InternalError otherwise; the message
// begins with `what`.
inline void check_cuda(cudaError_t code, const char* what) {
  if (code == cudaSuccess) [[likely]]
    return;
  const std::string text =
      str_cat(what, ": CUDA: ", cudaGetErrorString(code), " (", cudaGetErrorName(code), ")");
  if (code == cudaErrorMemoryAllocation) throw OutOfMemory(text + "; expected free device memory");
  throw InternalError(text);
}

// After a launch of a kernel.
inline void check_launch(const char* kernel) { check_cuda(cudaGetLastError(), kernel); }

}  // namespace octavo::cuda
