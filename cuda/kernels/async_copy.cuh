// Copies from global to shared memory that run behind the threads' back (cp.async, sm_80 and
// later). Part of kernels; no state.
#pragma once

#include <cstdint>

namespace octavo::cuda {

// The address of shared memory as the copies and ldmatrix take it.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes past the L1 cache, both addresses aligned to that; `bytes` (0 or 16) of them are read,
// the rest are zeros. `source` is a valid address even where nothing is read.
__device__ __forceinline__ void copy_async_16(uint32_t target, const void* source, uint32_t bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(target), "l"(source),
               "r"(bytes)
               : "memory");
}

// Ends a group of this thread's copies.
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most the `kPending` last groups of this thread are under way. Other threads'
// copies are seen after a barrier.
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace octavo::cuda
