// Between launch_attention and the files of its kernels, one for each kind, so that they compile
// side by side. Step thread; asynchronous on `stream`.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <atomic>

#include "cuda_error.h"
#include "kernels/attention_common.cuh"
#include "kernels/dependent.cuh"

namespace octavo::cuda {

// The batch's tiles, and its decode sequences, on the tensor cores. `dtype` is float16 or bfloat16,
// of the activations and of the cache.
void launch_prefill_attention(DType dtype, const AttentionParams& params, cudaStream_t stream);
void launch_decode_attention(DType dtype, const AttentionParams& params, cudaStream_t stream);

// The decode sequences, or the tiles, as params.decode_rows says.
void launch_generic_attention(DType dtype, DType cache_dtype, const AttentionParams& params,
                              cudaStream_t stream);

// What the first launch of a kernel on a device finds out and sets.
template <auto kKernel>
bool may_begin_early(size_t shared_bytes) {
  constexpr uint8_t kKnown = 1, kEarly = 2;
  static std::array<std::atomic<uint8_t>, 64> devices;
  int device = 0;
  check_cuda(cudaGetDevice(&device), "launch");
  std::atomic<uint8_t>& state = devices.at(static_cast<size_t>(device));
  if (state.load() == 0) {
    if (shared_bytes > 0) {
      check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kKernel),
                                      cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(shared_bytes)),
                 "launch");
    }
    state.store(waits_for_earlier_kernels(kKernel) ? kKnown | kEarly : kKnown);
  }
  return (state.load() & kEarly) != 0;
}

}  // namespace octavo::cuda
