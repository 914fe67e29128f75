#include "kernels/convert.cuh"

#include "cuda_error.h"
#include "launch/dispatch.h"
#include "launch/rows.h"

namespace octavo::cuda {
namespace {

template <typename From, typename To>
void launch_convert_of(const ConvertMatrix& args, cudaStream_t stream) {
  ConvertParams params{.source = args.source,
                       .out = args.out,
                       .rows = args.rows,
                       .cols = args.cols,
                       .row_order = args.row_order,
                       .pieces = 0};
  if (args.transposed) {
    params.pieces = divide_up(args.cols, kTile);
    const int64_t tiles = divide_up(args.rows, kTile) * params.pieces;
    transpose_kernel<From, To>
        <<<grid_blocks(tiles, "convert"), dim3(kTile, kTileRows), 0, stream>>>(params);
    return;
  }
  params.pieces = divide_up(args.cols, kConvertWidth);
  const unsigned blocks =
      grid_blocks(divide_up(args.rows * params.pieces, kConvertThreads), "convert");
  if (args.cols % kConvertWidth == 0 && is_aligned(args.source) && is_aligned(args.out)) {
    convert_kernel<From, To, true><<<blocks, kConvertThreads, 0, stream>>>(params);
  } else {
    convert_kernel<From, To, false><<<blocks, kConvertThreads, 0, stream>>>(params);
  }
}

}  // namespace

void launch_convert(const ConvertMatrix& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return;
  with_type(args.source_dtype, "convert", [&](auto from) {
    with_type(args.out_dtype, "convert",
              [&](auto to) { launch_convert_of<decltype(from), decltype(to)>(args, stream); });
  });
  check_launch("convert");
}

}  // namespace octavo::cuda
