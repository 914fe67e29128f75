#include "kernels/attention_generic.cuh"

#include "launch/attention_parts.h"

namespace octavo::cuda {
namespace {

template <typename T, typename KV, int kPer>
void launch(const AttentionParams& params, cudaStream_t stream) {
  constexpr auto kKernel = generic_attention_kernel<T, KV, kPer>;
  const bool early = may_begin_early<kKernel>(0);
  const int64_t items = params.decode_rows ? params.batch.num_decode : params.batch.num_tiles;
  const int64_t quads =
      (int64_t{params.tile_tokens} * params.group + kGenericRows - 1) / kGenericRows;
  launch_dependent(kKernel, dim3(static_cast<uint32_t>(items * params.kv_heads * quads)),
                   dim3(kGenericWarps * 32), 0, early, stream, params);
}

template <typename T, typename KV>
void launch_dims(const AttentionParams& params, cudaStream_t stream) {
  if (params.head_dim <= 64) return launch<T, KV, 2>(params, stream);
  launch<T, KV, kMaxHeadDim / 32>(params, stream);
}

template <typename T>
void launch_cache(DType cache_dtype, const AttentionParams& params, cudaStream_t stream) {
  switch (cache_dtype) {
    case DType::kFloat16: return launch_dims<T, __half>(params, stream);
    case DType::kBFloat16: return launch_dims<T, __nv_bfloat16>(params, stream);
    default: return launch_dims<T, float>(params, stream);
  }
}

}  // namespace

void launch_generic_attention(DType dtype, DType cache_dtype, const AttentionParams& params,
                              cudaStream_t stream) {
  switch (dtype) {
    case DType::kFloat16: return launch_cache<__half>(cache_dtype, params, stream);
    case DType::kBFloat16: return launch_cache<__nv_bfloat16>(cache_dtype, params, stream);
    default: return launch_cache<float>(cache_dtype, params, stream);
  }
}

}  // namespace octavo::cuda
