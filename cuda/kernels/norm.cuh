// Root-mean-square and layer normalisation: one block a row. A row is read once and kept in
// registers; one that is too long for them is read again.
#pragma once

#include <cstdint>

#include "kernels/dependent.cuh"
#include "kernels/reduce.cuh"
#include "kernels/vec.cuh"

namespace octavo::cuda {

struct NormParams {
  const void* x;  // [rows, hidden]
  int64_t x_stride;
  const float* weight;  // [hidden]
  const float* bias;    // [hidden], or null
  void* out;            // [rows, hidden], may be x
  int64_t out_stride;
  int32_t hidden;
  float one_of_hidden;  // 1 / hidden: divisions are long calls
  float eps;
};

enum class NormKind { kRms, kLayer };

// kVector<T> elements of a row from `column`, those before `hidden`: 16 bytes at a time where rows
// begin and end on 16 bytes, else one by one. The same threads take the same elements either way,
// so that alignment changes no sum.
template <typename T, bool kAligned>
__device__ __forceinline__ void load_part(const T* row, int column, int hidden,
                                          float (&out)[kVector<T>]) {
  if constexpr (kAligned) {
    load_vector(row + column, out);
  } else {
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) {
      out[i] = column + i < hidden ? to_float(row[column + i]) : 0.0f;
    }
  }
}

template <typename T, bool kAligned>
__device__ __forceinline__ void store_part(T* row, int column, int hidden,
                                           const float (&values)[kVector<T>]) {
  if constexpr (kAligned) {
    store_vector(row + column, values);
  } else {
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) {
      if (column + i < hidden) row[column + i] = from_float<T>(values[i]);
    }
  }
}

// The same of float32 parameters, as many as of T.
template <int kWidth, bool kAligned>
__device__ __forceinline__ void load_floats(const float* row, int column, int hidden,
                                            float (&out)[kWidth]) {
#pragma unroll
  for (int i = 0; i < kWidth; i += 4) {
    float part[4];
    load_part<float, kAligned>(row, column + i, hidden, part);
#pragma unroll
    for (int j = 0; j < 4; ++j) out[i + j] = part[j];
  }
}

// What a row's elements are multiplied by, and what is subtracted from them before.
struct NormScale {
  float scale;
  float first;   // a mean of the elements, rounded
  float second;  // the mean of what is left
};

// The mean of float32 elements far from 0 is rounded as they are: the mean of the deviations from
// it makes up for that, and for the variance.
template <NormKind kKind, typename ForEach>
__device__ __forceinline__ NormScale norm_scale(const ForEach& for_each, const NormParams& p) {
  __shared__ float partials[32];
  __shared__ float2 pairs[32];
  NormScale result{0.0f, 0.0f, 0.0f};
  float variance = 0.0f;
  if constexpr (kKind == NormKind::kRms) {
    float squares = 0.0f;
    for_each([&](float value) { squares = fmaf(value, value, squares); });
    variance = block_sum(squares, partials) * p.one_of_hidden;
  } else {
    float sum = 0.0f;
    for_each([&](float value) { sum += value; });
    result.first = block_sum(sum, partials) * p.one_of_hidden;
    float2 sums = make_float2(0.0f, 0.0f);  // of deviations, and of their squares
    for_each([&](float value) {
      const float deviation = value - result.first;
      sums.x += deviation;
      sums.y = fmaf(deviation, deviation, sums.y);
    });
    sums = block_sums(sums, pairs);
    result.second = sums.x * p.one_of_hidden;
    variance = fmaxf(sums.y * p.one_of_hidden - result.second * result.second, 0.0f);
  }
  result.scale = rsqrtf(variance + p.eps);
  return result;
}

// The parameters of some columns.
template <int kWidth>
struct NormWeights {
  float weight[kWidth];
  float bias[kWidth];  // zeros where there is none
};

template <NormKind kKind, bool kAligned, int kWidth>
__device__ __forceinline__ void load_weights(const NormParams& p, int column,
                                             NormWeights<kWidth>& out) {
  load_floats<kWidth, kAligned>(p.weight, column, p.hidden, out.weight);
  if (kKind == NormKind::kLayer && p.bias != nullptr) {
    load_floats<kWidth, kAligned>(p.bias, column, p.hidden, out.bias);
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) out.bias[i] = 0.0f;
  }
}

template <NormKind kKind, typename T, bool kAligned>
__device__ __forceinline__ void write_normalised(const float (&values)[kVector<T>], int column,
                                                 const NormScale& norm, const NormParams& p,
                                                 const NormWeights<kVector<T>>& weights, T* out) {
  float result[kVector<T>];
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) {
    const float centred =
        kKind == NormKind::kLayer ? (values[i] - norm.first) - norm.second : values[i];
    result[i] = fmaf(centred * norm.scale, weights.weight[i], weights.bias[i]);
  }
  store_part<T, kAligned>(out, column, p.hidden, result);
}

// Threads of a block: one vector each as far as that takes no more than half of the largest block,
// so that a norm's block finds a place beside those of the products around it.
inline constexpr int kNormThreads = 512;
inline constexpr int kMostNormThreads = 1024;

// blockDim.x * kVector<T> * kCount is at least `hidden`. Which thread takes which elements depends
// on `hidden` alone, and on neither kAligned nor kCount.
template <NormKind kKind, typename T, bool kAligned, int kCount>
__global__ void __launch_bounds__(kCount == 1 ? kNormThreads : kMostNormThreads)
    norm_kernel(const __grid_constant__ NormParams p) {
  let_next_kernel_begin();
  constexpr int kWidth = kVector<T>;
  // Rows that are not aligned have no registers to spare for them.
  constexpr int kEarly = kAligned ? kCount : 0;
  const auto column_of = [](int i) {
    return (i * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * kWidth;
  };
  NormWeights<kWidth> early[kCount];
#pragma unroll
  for (int i = 0; i < kEarly; ++i) {
    if (column_of(i) < p.hidden) load_weights<kKind, kAligned>(p, column_of(i), early[i]);
  }
  const int64_t row = blockIdx.x;
  const T* x = static_cast<const T*>(p.x) + row * p.x_stride;
  T* out = static_cast<T*>(p.out) + row * p.out_stride;
  wait_for_earlier_kernels();
  float values[kCount][kWidth];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (column_of(i) < p.hidden) {
      load_part<T, kAligned>(x, column_of(i), p.hidden, values[i]);
    }
  }
  const auto for_each = [&](auto take) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        // A row of whole vectors has none that is cut off.
        if (column_of(i) + (kAligned ? 0 : j) < p.hidden) take(values[i][j]);
      }
    }
  };
  const NormScale norm = norm_scale<kKind>(for_each, p);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (column_of(i) >= p.hidden) continue;
    if constexpr (kEarly == 0) load_weights<kKind, kAligned>(p, column_of(i), early[i]);
    write_normalised<kKind, T, kAligned>(values[i], column_of(i), norm, p, early[i], out);
  }
}

// Rows of any length and alignment.
template <NormKind kKind, typename T>
__global__ void __launch_bounds__(kMostNormThreads)
    norm_long_kernel(const __grid_constant__ NormParams p) {
  let_next_kernel_begin();
  constexpr int kWidth = kVector<T>;
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x;
  const T* x = static_cast<const T*>(p.x) + row * p.x_stride;
  T* out = static_cast<T*>(p.out) + row * p.out_stride;
  const int first = static_cast<int>(threadIdx.x) * kWidth;
  const int step = static_cast<int>(blockDim.x) * kWidth;
  const auto for_each = [&](auto take) {
    for (int column = first; column < p.hidden; column += step) {
      float values[kWidth];
      load_part<T, false>(x, column, p.hidden, values);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if (column + j < p.hidden) take(values[j]);
      }
    }
  };
  const NormScale norm = norm_scale<kKind>(for_each, p);
  for (int column = first; column < p.hidden; column += step) {
    float values[kWidth];
    NormWeights<kWidth> weights;
    load_part<T, false>(x, column, p.hidden, values);
    load_weights<kKind, false>(p, column, weights);
    write_normalised<kKind, T, false>(values, column, norm, p, weights, out);
  }
}

}  // namespace octavo::cuda
