// Elementwise work on rows: gates, and what a product of matrices leaves undone.
#pragma once

#include <cstdint>

#include "kernels/activation.cuh"
#include "kernels/dependent.cuh"
#include "kernels/vec.cuh"

namespace octavo::cuda {

inline constexpr int kElementThreads = 128;

// A block takes kElementThreads accesses of one row: of kWidth elements each, which are 16 bytes or
// one element.
struct Place {
  int64_t row;
  int64_t column;
};
__device__ __forceinline__ Place element_place(int32_t blocks_per_row, int width) {
  const int64_t row = blockIdx.x / static_cast<uint32_t>(blocks_per_row);
  const int64_t block = blockIdx.x % static_cast<uint32_t>(blocks_per_row);
  return {row, (block * kElementThreads + threadIdx.x) * width};
}

template <int kWidth, typename T>
__device__ __forceinline__ void load_some(const T* source, float (&out)[kWidth]) {
  if constexpr (kWidth == 1) {
    out[0] = to_float(*source);
  } else {
    load_vector(source, out);
  }
}

template <int kWidth, typename T>
__device__ __forceinline__ void store_some(T* target, const float (&values)[kWidth]) {
  if constexpr (kWidth == 1) {
    *target = from_float<T>(values[0]);
  } else {
    store_vector(target, values);
  }
}

struct GateParams {
  const void* gate;  // [rows, columns]
  const void* up;    // [rows, columns]
  void* out;         // [rows, columns], may be gate
  int64_t gate_stride, up_stride, out_stride;
  int64_t columns;
  int32_t blocks_per_row;
  Activation activation;
};

template <typename T, int kWidth>
__global__ void __launch_bounds__(kElementThreads)
    gate_kernel(const __grid_constant__ GateParams p) {
  let_next_kernel_begin();
  const auto [row, column] = element_place(p.blocks_per_row, kWidth);
  wait_for_earlier_kernels();
  if (column >= p.columns) return;
  float gate[kWidth], up[kWidth];
  load_some<kWidth>(static_cast<const T*>(p.gate) + row * p.gate_stride + column, gate);
  load_some<kWidth>(static_cast<const T*>(p.up) + row * p.up_stride + column, up);
  activate_all(gate, p.activation);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) gate[i] *= up[i];
  store_some<kWidth>(static_cast<T*>(p.out) + row * p.out_stride + column, gate);
}

struct FinishParams {
  void* out;             // [rows, columns]
  const float* bias;     // [columns], or null
  const void* residual;  // [rows, columns], or null
  int64_t out_stride, residual_stride;
  int64_t columns;
  int32_t blocks_per_row;
  Activation activation;
};

// out = activation(out + bias) + residual
template <typename T, int kWidth>
__global__ void __launch_bounds__(kElementThreads)
    finish_kernel(const __grid_constant__ FinishParams p) {
  let_next_kernel_begin();
  const auto [row, column] = element_place(p.blocks_per_row, kWidth);
  const bool inside = column < p.columns;
  float bias[kWidth] = {};
  if (p.bias != nullptr && inside) {  // a constant: while the kernels ahead still run
#pragma unroll
    for (int i = 0; i < kWidth; ++i) bias[i] = p.bias[column + i];
  }
  wait_for_earlier_kernels();
  if (!inside) return;
  T* out = static_cast<T*>(p.out) + row * p.out_stride + column;
  float values[kWidth], residual[kWidth];
  load_some<kWidth>(out, values);
  if (p.residual != nullptr) {
    load_some<kWidth>(static_cast<const T*>(p.residual) + row * p.residual_stride + column,
                      residual);
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) values[i] += bias[i];
  activate_all(values, p.activation);
  if (p.residual != nullptr) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) values[i] += residual[i];
  }
  store_some<kWidth>(out, values);
}

}  // namespace octavo::cuda
