// From dtypes that are known at run time to types, and whether 16 bytes may be read at a time. For
// the launchers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <initializer_list>

#include "base/check.h"
#include "tensor/tensor.h"

namespace octavo::cuda {

// Calls run(T{}) with the floating type of `dtype`.
template <typename Run>
void with_type(DType dtype, const char* word, const Run& run) {
  switch (dtype) {
    case DType::kFloat32: return run(float{});
    case DType::kFloat16: return run(__half{});
    case DType::kBFloat16: return run(__nv_bfloat16{});
    default:
      OCTAVO_CHECK(false, word, ": dtype is ", dtype_name(dtype), "; expected a floating one");
  }
}

inline bool is_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

// Whether every row of [rows, cols] begins on 16 bytes and is a number of 16 bytes long.
inline bool has_vectors(const Tensor& matrix) {
  const int64_t vector = 16 / static_cast<int64_t>(dtype_size(matrix.dtype()));
  return is_aligned(matrix.data()) && matrix.dim(1) % vector == 0 &&
         (matrix.dim(0) <= 1 || matrix.stride(0) % vector == 0);
}

inline int64_t divide_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

// In threads: enough warps for `count`, at most `most`.
inline unsigned block_threads(int64_t count, int64_t most) {
  const int64_t threads = divide_up(count, 32) * 32;
  return static_cast<unsigned>(threads < 32 ? 32 : threads > most ? most : threads);
}

inline unsigned grid_blocks(int64_t blocks, const char* word) {
  OCTAVO_CHECK(blocks <= 0x7fffffff, word, ": ", blocks, " blocks; expected less than 2^31");
  return static_cast<unsigned>(blocks);
}

}  // namespace octavo::cuda
