#include "launch/noise.h"

#include <algorithm>

#include "cuda_error.h"
#include "kernels/noise.cuh"
#include "launch/dispatch.h"

namespace octavo::cuda {

void launch_noise(const NoiseMatrix& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return;
  const NoiseParams params{.seed = args.seed,
                           .out = args.out,
                           .row_order = args.row_order,
                           .rows = args.rows,
                           .cols = args.cols,
                           .pieces = divide_up(args.cols, kNoiseWidth),
                           .transposed = args.transposed,
                           .vectors = args.cols % kNoiseWidth == 0 && is_aligned(args.out)};
  constexpr int64_t kMostBlocks = 1 << 16;
  const unsigned blocks = grid_blocks(
      std::min(divide_up(params.rows * params.pieces, kNoiseThreads), kMostBlocks), "noise");
  with_type(args.matrix_dtype, "noise", [&](auto matrix) {
    with_type(args.out_dtype, "noise", [&](auto out) {
      noise_kernel<decltype(matrix), decltype(out)><<<blocks, kNoiseThreads, 0, stream>>>(params);
    });
  });
  check_launch("noise");
}

}  // namespace octavo::cuda
