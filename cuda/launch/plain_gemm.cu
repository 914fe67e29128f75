#include "launch/plain_gemm.h"

#include <algorithm>
#include <type_traits>

#include "cuda_error.h"
#include "kernels/plain_gemm.cuh"
#include "launch/dispatch.h"

namespace octavo::cuda {

void launch_plain_gemm(const PlainGemm& args, cudaStream_t stream) {
  const PlainGemmParams params{.weight = args.weight,
                               .x = args.x.data(),
                               .out = args.out.data(),
                               .x_stride = args.x.stride(0),
                               .out_stride = args.out.stride(0),
                               .tokens = args.x.dim(0),
                               .in = args.x.dim(1),
                               .out_features = args.out.dim(1)};
  if (params.tokens == 0 || params.out_features == 0) return;
  constexpr int64_t kMostRows = 65535;  // of a grid
  const dim3 grid(grid_blocks(divide_up(params.out_features, kPlainTile), "linear"),
                  static_cast<unsigned>(std::min(divide_up(params.tokens, kPlainTile), kMostRows)));
  const dim3 block(kPlainTile, kPlainTile);
  with_type(args.x.dtype(), "linear", [&](auto tag) {
    using T = decltype(tag);
    if (args.out.dtype() == args.x.dtype()) {
      plain_gemm_kernel<T, T><<<grid, block, 0, stream>>>(params);
    } else {
      OCTAVO_CHECK(args.out.dtype() == DType::kFloat32, "linear: out is ",
                   dtype_name(args.out.dtype()), "; expected x's dtype or float32");
      plain_gemm_kernel<T, float><<<grid, block, 0, stream>>>(params);
    }
  });
  check_launch("linear");
}

}  // namespace octavo::cuda
