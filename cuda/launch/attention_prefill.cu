#include "kernels/attention_prefill.cuh"

#include "launch/attention_parts.h"

namespace octavo::cuda {
namespace {

template <typename T, int kDim>
void launch(const AttentionParams& params, cudaStream_t stream) {
  using Shape = PrefillShape<kDim>;
  constexpr auto kKernel = prefill_attention_kernel<T, kDim>;
  may_begin_early<kKernel>(Shape::kSharedBytes);
  const int64_t blocks = int64_t{params.batch.num_tiles} * params.kv_heads * params.head_chunks;
  // Never early: the kernel fills the device, and has no wait.
  launch_dependent(kKernel, dim3(static_cast<uint32_t>(blocks)), dim3(Shape::kThreads),
                   Shape::kSharedBytes, false, stream, params);
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

void launch_prefill_attention(DType dtype, const AttentionParams& params, cudaStream_t stream) {
  if (dtype == DType::kFloat16) return launch_any<__half>(params, stream);
  launch_any<__nv_bfloat16>(params, stream);
}

}  // namespace octavo::cuda
