// The activations of op_args.h in float32, for the epilogues of kernels. Known at run time by a
// switch that is the same for all threads, or at compile time by a template argument.
#pragma once

#include "backend/op_args.h"

namespace octavo::cuda {

template <Activation kActivation>
__device__ __forceinline__ float activate(float x) {
  if constexpr (kActivation == Activation::kRelu) {
    return x < 0.0f ? 0.0f : x;  // NaN stays
  } else if constexpr (kActivation == Activation::kSilu) {
    return __fdividef(x, 1.0f + expf(-x));
  } else if constexpr (kActivation == Activation::kGelu) {
    return 0.5f * x * erfcf(x * -0.70710678118654752f);  // 1 + erf would lose its digits below 0
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    // 0.5 * (1 + tanh(z)) is the logistic function of 2z.
    const float z = 0.79788456080286536f * (x + 0.044715f * x * x * x);
    return __fdividef(x, 1.0f + expf(-2.0f * z));
  } else {
    return x;
  }
}

__device__ __forceinline__ float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::kRelu: return activate<Activation::kRelu>(x);
    case Activation::kSilu: return activate<Activation::kSilu>(x);
    case Activation::kGelu: return activate<Activation::kGelu>(x);
    case Activation::kGeluTanh: return activate<Activation::kGeluTanh>(x);
    default: return x;
  }
}

// The same of several values, with one switch for all of them.
template <int kCount>
__device__ __forceinline__ void activate_all(float (&values)[kCount], Activation activation) {
  const auto apply = [&values](auto one) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = one(values[i]);
  };
  switch (activation) {
    case Activation::kRelu: apply([](float x) { return activate<Activation::kRelu>(x); }); break;
    case Activation::kSilu: apply([](float x) { return activate<Activation::kSilu>(x); }); break;
    case Activation::kGelu: apply([](float x) { return activate<Activation::kGelu>(x); }); break;
    case Activation::kGeluTanh:
      apply([](float x) { return activate<Activation::kGeluTanh>(x); });
      break;
    default: break;
  }
}

}  // namespace octavo::cuda
