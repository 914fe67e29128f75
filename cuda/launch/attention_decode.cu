#include "kernels/attention_decode.cuh"

#include "launch/attention_parts.h"

namespace octavo::cuda {
namespace {

template <typename T, int kDim>
void launch(const AttentionParams& params, cudaStream_t stream) {
  using Shape = DecodeShape<kDim>;
  constexpr auto kKernel = decode_attention_kernel<T, kDim>;
  const bool early = may_begin_early<kKernel>(Shape::kSharedBytes);
  const dim3 grid(static_cast<uint32_t>(params.head_chunks * params.batch.num_splits),
                  static_cast<uint32_t>(params.kv_heads),
                  static_cast<uint32_t>(params.batch.num_decode));
  launch_dependent(kKernel, grid, dim3(Shape::kThreads), Shape::kSharedBytes, early, stream,
                   params);
}

template <typename T>
void launch_any(const AttentionParams& params, cudaStream_t stream) {
  switch (padded_head_dim(params.head_dim)) {
    case 64: return launch<T, 64>(params, stream);
    case 96: return launch<T, 96>(params, stream);
    case 128: return launch<T, 128>(params, stream);
    default: return launch<T, 256>(params, stream);
  }
}

}  // namespace

void launch_decode_attention(DType dtype, const AttentionParams& params, cudaStream_t stream) {
  if (dtype == DType::kFloat16) return launch_any<__half>(params, stream);
  launch_any<__nv_bfloat16>(params, stream);
}

}  // namespace octavo::cuda
