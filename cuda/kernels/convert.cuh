// Matrices of weights become another dtype, their rows another order, or they are transposed. Runs
// when a model is loaded.
#pragma once

#include <cstdint>

#include "kernels/vec.cuh"

namespace octavo::cuda {

inline constexpr int kConvertThreads = 256;
inline constexpr int kConvertWidth = 8;  // elements of a thread: 16 bytes of the smaller dtypes
inline constexpr int kTile = 32;         // of a transposition
inline constexpr int kTileRows = 8;      // of threads, over a tile

struct ConvertParams {
  const void* source;
  void* out;                 // [rows, cols]
  int64_t rows, cols;        // of out
  const int32_t* row_order;  // [rows], or null
  int64_t pieces;            // transposed: tiles along cols; else: accesses of a row
};

template <typename T>
__device__ __forceinline__ void load_eight(const T* source, bool aligned, int count,
                                           float (&out)[kConvertWidth]) {
  if (aligned) {
#pragma unroll
    for (int i = 0; i < kConvertWidth; i += kVector<T>) {
      float part[kVector<T>];
      load_vector(source + i, part);
#pragma unroll
      for (int j = 0; j < kVector<T>; ++j) out[i + j] = part[j];
    }
  } else {
#pragma unroll
    for (int i = 0; i < kConvertWidth; ++i) out[i] = i < count ? to_float(source[i]) : 0.0f;
  }
}

template <typename T>
__device__ __forceinline__ void store_eight(T* target, bool aligned, int count,
                                            const float (&values)[kConvertWidth]) {
  if (aligned) {
#pragma unroll
    for (int i = 0; i < kConvertWidth; i += kVector<T>) {
      float part[kVector<T>];
#pragma unroll
      for (int j = 0; j < kVector<T>; ++j) part[j] = values[i + j];
      store_vector(target + i, part);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kConvertWidth; ++i) {
      if (i < count) target[i] = from_float<T>(values[i]);
    }
  }
}

// out[i] = source[row_order[i]]; source is [any, cols].
template <typename From, typename To, bool kAligned>
__global__ void __launch_bounds__(kConvertThreads) convert_kernel(ConvertParams p) {
  const int64_t access = int64_t{blockIdx.x} * kConvertThreads + threadIdx.x;
  const int64_t row = access / p.pieces;
  if (row >= p.rows) return;
  const int64_t column = (access - row * p.pieces) * kConvertWidth;
  const int64_t source_row = p.row_order == nullptr ? row : p.row_order[row];
  const int64_t left = p.cols - column;
  const int count = left < kConvertWidth ? static_cast<int>(left) : kConvertWidth;
  float values[kConvertWidth];
  load_eight(static_cast<const From*>(p.source) + source_row * p.cols + column, kAligned, count,
             values);
  store_eight(static_cast<To*>(p.out) + row * p.cols + column, kAligned, count, values);
}

// out[i][j] = source[j][row_order[i]]; source is [cols, rows]. A tile of kTile rows and columns
// goes through shared memory, so that both sides are read and written along their rows.
template <typename From, typename To>
__global__ void __launch_bounds__(kTile* kTileRows) transpose_kernel(ConvertParams p) {
  __shared__ float tile[kTile][kTile + 1];  // one more column: no two rows share a bank
  const int64_t first_row = blockIdx.x / p.pieces * kTile;
  const int64_t first_column = blockIdx.x % p.pieces * kTile;
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const From* source = static_cast<const From*>(p.source);
  if (const int64_t row = first_row + x; row < p.rows) {
    const int64_t source_column = p.row_order == nullptr ? row : p.row_order[row];
    for (int j = y; j < kTile && first_column + j < p.cols; j += kTileRows) {
      tile[j][x] = to_float(source[(first_column + j) * p.rows + source_column]);
    }
  }
  __syncthreads();
  To* out = static_cast<To*>(p.out);
  if (first_column + x >= p.cols) return;
  for (int i = y; i < kTile && first_row + i < p.rows; i += kTileRows) {
    out[(first_row + i) * p.cols + first_column + x] = from_float<To>(tile[x][i]);
  }
}

}  // namespace octavo::cuda
