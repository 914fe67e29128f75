// Programmatic dependent launch (Hopper and newer): a kernel that is launched by launch_dependent()
// may begin before the kernels ahead of it in the stream have ended. Until it has called
// wait_for_earlier_kernels() it may touch nothing that any of them reads or writes: only constants,
// which are weights, biases and what norms scale by.
//
// Why that is enough, however many kernels are under way: the wait ends when the kernel directly
// ahead, P, has ended and its writes can be seen. Every thread of P waited as well before it ended,
// so that by then the kernel ahead of P had ended, and so on; what P's threads could see, P's end
// passes on. After the wait, therefore, all earlier kernels are over: their results can be read,
// and what they read can be overwritten. Both depend on this rule: EVERY thread of a kernel that is
// launched early calls the wait before it returns, those with nothing to do too. A kernel without
// the wait is launched as usual, and begins when all earlier ones have ended.
//
// The next kernel's blocks are placed when all blocks of this one have called
// let_next_kernel_begin(), and hence have a place themselves: waiting blocks take no room from
// those that they wait for. So it is the first thing that a kernel does, but for the copies of
// weights that it has to begin: then kernels that only wait do not keep the next weight from being
// read.
#pragma once

#include <cuda_runtime.h>

#include "cuda_error.h"

namespace octavo::cuda {

inline constexpr bool kDependentLaunch = true;  // false: kernels follow one another as usual

__device__ __forceinline__ void wait_for_earlier_kernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (kDependentLaunch) asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// From here on the next kernel may begin, as far as there is room; it waits by itself for the
// results of this one.
__device__ __forceinline__ void let_next_kernel_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (kDependentLaunch) asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Whether `kernel` was compiled with the wait above: code for older devices has none, and must not
// be launched early.
template <typename Params>
bool waits_for_earlier_kernels(void (*kernel)(Params)) {
  cudaFuncAttributes attributes{};
  check_cuda(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel)), "launch");
  return kDependentLaunch && attributes.ptxVersion >= 90;
}

// `early` is what waits_for_earlier_kernels says of the kernel. Works in a stream's capture.
template <typename Params>
void launch_dependent(void (*kernel)(Params), dim3 grid, dim3 block, size_t shared_bytes,
                      bool early, cudaStream_t stream, const Params& params) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = early ? 1 : 0;
  check_cuda(cudaLaunchKernelEx(&config, kernel, params), "launch");
}

}  // namespace octavo::cuda
