// Products of matrices by cuBLASLt, which is opened at run time. Owned by the CUDA back end, used
// on the step thread; asynchronous on its stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

#include "backend/op_args.h"

namespace octavo::cuda {

// out = activation(x * weight^T + bias), and then += residual where one is given; float32 sums.
struct GemmArgs {
  const void* weight;  // [out_features, in_features] of `x`'s dtype, contiguous
  Tensor x;            // [tokens, in_features], rows may be strided
  Tensor bias;         // float32 [out_features], or none
  Activation activation;
  Tensor residual;  // [tokens, out_features] of out's dtype, or none; may be out
  Tensor out;       // [tokens, out_features], x's dtype or float32; rows may be strided
};

class Gemm {
 public:
  // Opens the library and allocates the workspace. Throws NotSupported where cuBLASLt is not found:
  // it names the package and where was looked.
  explicit Gemm(cudaStream_t stream);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  // Computes everything that GemmArgs says. Algorithms are chosen by cuBLASLt's heuristic once for
  // each shape and kept. It never waits, and allocates only the copy of a bias that it meets for
  // the first time: it may be captured once it ran with the same arguments (cuBLASLt loads a
  // kernel's code when it is first used).
  void run(const GemmArgs& args);

  // cuBLASLt wants biases in out's dtype: converted copies are kept. So biases are written by
  // copies of the host alone, and whoever makes one says so after it is in the stream: copies of
  // biases that lie there are made anew, in place, which recorded products read as well.
  void written(const void* data, size_t bytes);
  // The same for memory that was just allocated: what lay there before is gone, and its copies too.
  void allocated(const void* data, size_t bytes);

  size_t workspace_bytes() const;
  // Products, by shape and epilogue, for which cuBLASLt had no algorithm, so that slower kernels of
  // our own compute or finish them: none for matrices whose rows begin on 16 bytes.
  size_t num_plain_plans() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace octavo::cuda
