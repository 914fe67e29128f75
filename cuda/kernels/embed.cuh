// Rows that are looked up: embeddings, and the rows of a batch whose logits are wanted.
#pragma once

#include <cstdint>

#include "kernels/gate.cuh"

namespace octavo::cuda {

struct LookupParams {
  const void* source;  // [any, columns]
  const int32_t* ids;  // [rows]
  void* out;           // [rows, columns]
  int64_t source_stride, out_stride;
  int64_t columns;
  int32_t blocks_per_row;
  int32_t offset;  // added to ids
};

// out[i] = source[ids[i] + offset], or += it.
template <typename T, int kWidth, bool kAccumulate>
__global__ void __launch_bounds__(kElementThreads)
    lookup_kernel(const __grid_constant__ LookupParams p) {
  let_next_kernel_begin();
  const auto [row, column] = element_place(p.blocks_per_row, kWidth);
  wait_for_earlier_kernels();  // ids may be tokens that were just drawn
  if (column >= p.columns) return;
  const int64_t found = int64_t{p.ids[row]} + p.offset;
  const T* source = static_cast<const T*>(p.source) + found * p.source_stride + column;
  T* out = static_cast<T*>(p.out) + row * p.out_stride + column;
  if constexpr (kAccumulate) {
    float values[kWidth], before[kWidth];
    load_some<kWidth>(source, values);
    load_some<kWidth>(out, before);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) values[i] += before[i];
    store_some<kWidth>(out, values);
  } else if constexpr (kWidth == 1) {
    *out = *source;
  } else {
    *reinterpret_cast<uint4*>(out) = *reinterpret_cast<const uint4*>(source);
  }
}

}  // namespace octavo::cuda
