#include "kernels/norm.cuh"

#include "launch/dispatch.h"
#include "launch/rows.h"

namespace octavo::cuda {
namespace {

constexpr int kMostCount = 2;  // vectors of a thread

template <NormKind kKind, typename T, bool kAligned, int kCount>
void launch_rows(const NormParams& params, int64_t rows, unsigned threads, cudaStream_t stream) {
  constexpr auto kKernel = norm_kernel<kKind, T, kAligned, kCount>;
  static const bool early = waits_for_earlier_kernels(kKernel);
  launch_dependent(kKernel, dim3(grid_blocks(rows, "norm")), dim3(threads), 0, early, stream,
                   params);
}

template <NormKind kKind, typename T>
void launch_short(const NormParams& params, int64_t rows, bool vectors, cudaStream_t stream) {
  const int64_t accesses = divide_up(params.hidden, kVector<T>);
  const bool one = accesses <= kNormThreads;
  const unsigned threads =
      block_threads(one ? accesses : divide_up(accesses, kMostCount), kMostNormThreads);
  if (!vectors) {
    launch_rows<kKind, T, false, kMostCount>(params, rows, threads, stream);
  } else if (one) {
    launch_rows<kKind, T, true, 1>(params, rows, threads, stream);
  } else {
    launch_rows<kKind, T, true, kMostCount>(params, rows, threads, stream);
  }
}

template <NormKind kKind, typename T>
void launch_long(const NormParams& params, int64_t rows, cudaStream_t stream) {
  static const bool early = waits_for_earlier_kernels(norm_long_kernel<kKind, T>);
  launch_dependent(norm_long_kernel<kKind, T>, dim3(grid_blocks(rows, "norm")),
                   dim3(kMostNormThreads), 0, early, stream, params);
}

template <NormKind kKind>
void launch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps,
                 const Tensor& out, cudaStream_t stream) {
  const int64_t rows = x.dim(0), hidden = x.dim(1);
  if (rows == 0 || hidden == 0) return;
  OCTAVO_CHECK(hidden < (int64_t{1} << 30), "norm: rows of ", hidden, "; expected less than 2^30");
  const NormParams params{.x = x.data(),
                          .x_stride = x.stride(0),
                          .weight = weight.as<float>(),
                          .bias = bias ? bias.as<float>() : nullptr,
                          .out = out.data(),
                          .out_stride = out.stride(0),
                          .hidden = static_cast<int32_t>(hidden),
                          .one_of_hidden = 1.0f / static_cast<float>(hidden),
                          .eps = eps};
  const bool vectors =
      has_vectors(x) && has_vectors(out) && is_aligned(params.weight) && is_aligned(params.bias);
  with_type(x.dtype(), "norm", [&](auto tag) {
    using T = decltype(tag);
    if (hidden > int64_t{kMostNormThreads} * kMostCount * kVector<T>) {
      launch_long<kKind, T>(params, rows, stream);
    } else {
      launch_short<kKind, T>(params, rows, vectors, stream);
    }
  });
  check_launch("norm");
}

}  // namespace

void launch_rms_norm(const RmsNormArgs& args, cudaStream_t stream) {
  launch_norm<NormKind::kRms>(args.x, args.weight, Tensor(), args.eps, args.out, stream);
}

void launch_layer_norm(const LayerNormArgs& args, cudaStream_t stream) {
  launch_norm<NormKind::kLayer>(args.x, args.weight, args.bias, args.eps, args.out, stream);
}

}  // namespace octavo::cuda
