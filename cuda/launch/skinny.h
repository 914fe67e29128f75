// The product of a few rows with a weight: limited by the memory that the weight is read from. Rows
// of the weight are read once, straight into the tensor cores' registers. Step thread; asynchronous
// on `stream`.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/op_args.h"

namespace octavo::cuda {

inline constexpr int64_t kMostSkinnyTokens = 32;

struct SkinnyLinear {
  const void* weight;  // [out_features, in_features] of x's dtype, contiguous, 16-byte aligned
  Tensor x;            // [tokens, in_features], float16 or bfloat16 (or float32)
  Tensor bias;         // float32 [out_features], or none
  Activation activation;
  Tensor residual;  // [tokens, out_features] of x's dtype, or none; may be out
  Tensor out;       // [tokens, out_features], x's dtype or float32
  // The weight of a later product, 16-byte aligned, or null: so many bytes of it come to the L2
  // cache when this weight has been read.
  const void* next = nullptr;
  int64_t next_bytes = 0;
  int halves = 0;  // groups of 8 rows in a tile, 1, 2 or 4; 0: the kernel's own choice
};

// Whether the kernel takes this product and is the faster one for so many rows.
bool takes_skinny(const SkinnyLinear& args);
void launch_skinny(const SkinnyLinear& args, cudaStream_t stream);

// out = activation(gate) * up of the same product, without its sums going through memory:
// weight [2 * intermediate, in_features], gate first.
struct SkinnyGate {
  const void* weight;
  Tensor x;     // [tokens, in_features]
  Tensor bias;  // float32 [2 * intermediate], or none
  Activation activation;
  Tensor out;      // [tokens, intermediate], of x's dtype
  int halves = 0;  // as above; 2 or 4
};
bool takes_skinny_gate(const SkinnyGate& args);
void launch_skinny_gate(const SkinnyGate& args, cudaStream_t stream);

}  // namespace octavo::cuda
