#include "kernels/gate.cuh"

#include "launch/dispatch.h"
#include "launch/rows.h"

namespace octavo::cuda {
namespace {

template <typename Params>
void launch_elements(void (*kernel)(Params), bool early, int64_t rows, Params params, int width,
                     const char* word, cudaStream_t stream) {
  const int64_t blocks = divide_up(divide_up(params.columns, width), kElementThreads);
  params.blocks_per_row = static_cast<int32_t>(grid_blocks(blocks, word));
  launch_dependent(kernel, dim3(grid_blocks(rows * blocks, word)), dim3(kElementThreads), 0, early,
                   stream, params);
  check_launch(word);
}

template <typename T, int kWidth>
void launch_gate_of(const GateParams& params, int64_t rows, cudaStream_t stream) {
  static const bool early = waits_for_earlier_kernels(gate_kernel<T, kWidth>);
  launch_elements(gate_kernel<T, kWidth>, early, rows, params, kWidth, "gate", stream);
}

template <typename T, int kWidth>
void launch_finish_of(const FinishParams& params, int64_t rows, cudaStream_t stream) {
  static const bool early = waits_for_earlier_kernels(finish_kernel<T, kWidth>);
  launch_elements(finish_kernel<T, kWidth>, early, rows, params, kWidth, "finish_linear", stream);
}

}  // namespace

void launch_gate(const GateArgs& args, cudaStream_t stream) {
  if (args.gate.size() == 0) return;
  const GateParams params{.gate = args.gate.data(),
                          .up = args.up.data(),
                          .out = args.out.data(),
                          .gate_stride = args.gate.stride(0),
                          .up_stride = args.up.stride(0),
                          .out_stride = args.out.stride(0),
                          .columns = args.gate.dim(1),
                          .blocks_per_row = 0,
                          .activation = args.activation};
  const bool vectors = has_vectors(args.gate) && has_vectors(args.up) && has_vectors(args.out);
  with_type(args.gate.dtype(), "gate", [&](auto tag) {
    using T = decltype(tag);
    vectors ? launch_gate_of<T, kVector<T>>(params, args.gate.dim(0), stream)
            : launch_gate_of<T, 1>(params, args.gate.dim(0), stream);
  });
}

void launch_finish_linear(const FinishLinear& args, cudaStream_t stream) {
  if (args.out.size() == 0) return;
  const FinishParams params{.out = args.out.data(),
                            .bias = args.bias ? args.bias.as<float>() : nullptr,
                            .residual = args.residual ? args.residual.data() : nullptr,
                            .out_stride = args.out.stride(0),
                            .residual_stride = args.residual ? args.residual.stride(0) : 0,
                            .columns = args.out.dim(1),
                            .blocks_per_row = 0,
                            .activation = args.activation};
  const bool vectors = has_vectors(args.out) && (!args.residual || has_vectors(args.residual));
  with_type(args.out.dtype(), "finish_linear", [&](auto tag) {
    using T = decltype(tag);
    vectors ? launch_finish_of<T, kVector<T>>(params, args.out.dim(0), stream)
            : launch_finish_of<T, 1>(params, args.out.dim(0), stream);
  });
}

}  // namespace octavo::cuda
