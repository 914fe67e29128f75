// Launchers of the words that work row by row: norms, gates, embeddings, gathering, and what a
// product of matrices leaves undone. Arguments have been checked; pointers are the device's; rows
// may be strided and, where a view begins anywhere, unaligned. Step thread; asynchronous on
// `stream`.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/op_args.h"

namespace octavo::cuda {

void launch_rms_norm(const RmsNormArgs& args, cudaStream_t stream);
void launch_layer_norm(const LayerNormArgs& args, cudaStream_t stream);
void launch_gate(const GateArgs& args, cudaStream_t stream);
void launch_gather_rows(const GatherRowsArgs& args, cudaStream_t stream);

// EmbedArgs with the table as it lies in memory: [vocab, dim] of out's dtype. Ids are in range.
struct EmbedRows {
  const void* table;  // [vocab, dim], contiguous
  Tensor ids;         // int32 [tokens]
  int32_t offset;
  bool accumulate;
  Tensor out;  // [tokens, dim]
};
void launch_embed(const EmbedRows& args, cudaStream_t stream);

// out = activation(out + bias) + residual, in place, where a kernel of matrices could not do it.
struct FinishLinear {
  Tensor out;   // [tokens, out_features], float32 or the activations' dtype
  Tensor bias;  // float32 [out_features], or none
  Activation activation;
  Tensor residual;  // [tokens, out_features] of out's dtype, or none; may be out itself only where
                    // the product was written elsewhere
};
void launch_finish_linear(const FinishLinear& args, cudaStream_t stream);

// Rows of float32, float16 or bfloat16 become another of these, rounded to nearest even.
// out[i] = source[row_order[i]], or source[i] where row_order is null; transposed: out[i][j] =
// source[j][i]. Both are contiguous.
struct ConvertMatrix {
  const void* source;  // [rows, cols], or [cols, rows] where transposed
  DType source_dtype;
  void* out;  // [rows, cols]
  DType out_dtype;
  int64_t rows, cols;
  const int32_t* row_order;  // device memory [rows], or null
  bool transposed;
};
void launch_convert(const ConvertMatrix& args, cudaStream_t stream);

}  // namespace octavo::cuda
