#include "kernels/rope_store.cuh"

#include <algorithm>
#include <initializer_list>

#include "launch/attention_parts.h"

namespace octavo::cuda {
namespace {

constexpr int32_t kThreads = 128;

struct Plan {
  RopeStoreParams params{};
  int32_t tokens = 0;
  int32_t rest = 0;  // elements of a head that are not rotated
};

Plan plan_of(const RopeStoreArgs& args) {
  const KvShape& shape = args.kv.shape;
  Plan plan;
  RopeStoreParams& p = plan.params;
  plan.tokens = static_cast<int32_t>(args.q.dim(0));
  p.q = args.q.data();
  p.k = args.k.data();
  p.v = args.v.data();
  p.q_token_stride = args.q.stride(0);
  p.q_head_stride = args.q.stride(1);
  p.k_token_stride = args.k.stride(0);
  p.k_head_stride = args.k.stride(1);
  p.v_token_stride = args.v.stride(0);
  p.v_head_stride = args.v.stride(1);
  p.slots = args.slots.as<int32_t>();
  p.cache = args.kv.data;
  p.value_offset = int64_t{shape.kv_heads} * shape.block_size * shape.head_dim;
  p.block_stride = 2 * p.value_offset;
  p.block_size = shape.block_size;
  p.kv_heads = shape.kv_heads;
  p.head_dim = shape.head_dim;
  if (args.cos_sin) {
    p.cos_sin = args.cos_sin.as<float>();
    p.cos_sin_stride = args.cos_sin.stride(0);
    p.cos_sin_rows = args.cos_sin_rows.as<int32_t>();
    p.half = static_cast<int32_t>(args.cos_sin.dim(1)) / 2;
  }
  plan.rest = p.head_dim - 2 * p.half;
  return plan;
}

// Whether all vectors of `vec` elements begin at multiples of 16 bytes, or of their size if less.
bool takes_vectors(const Plan& plan, const RopeStoreArgs& args, int32_t vec) {
  const RopeStoreParams& p = plan.params;
  const auto starts = [](std::initializer_list<const void*> pointers) {
    return std::ranges::all_of(
        pointers, [](const void* it) { return reinterpret_cast<uintptr_t>(it) % 16 == 0; });
  };
  const auto multiples = [&](std::initializer_list<int64_t> strides) {
    return std::ranges::all_of(strides, [&](int64_t stride) { return stride % vec == 0; });
  };
  return starts({p.q, p.k, p.v, p.cos_sin, args.kv.data}) &&
         multiples({p.q_token_stride, p.q_head_stride, p.k_token_stride, p.k_head_stride,
                    p.v_token_stride, p.v_head_stride, p.cos_sin_stride, p.half, p.head_dim});
}

template <typename T, typename KV, int kVec>
void launch(Plan plan, const RopeStoreArgs& args, cudaStream_t stream) {
  RopeStoreParams& p = plan.params;
  const auto heads = static_cast<int32_t>(args.q.dim(1));
  p.pair_items = p.half / kVec;
  p.key_items = p.pair_items + plan.rest / kVec;
  p.value_items = p.head_dim / kVec;
  p.q_items = heads * p.pair_items;
  p.k_items = p.q_items + p.kv_heads * p.key_items;
  p.items = p.k_items + p.kv_heads * p.value_items;
  const dim3 grid(static_cast<uint32_t>(plan.tokens),
                  static_cast<uint32_t>((p.items + kThreads - 1) / kThreads));
  constexpr auto kKernel = rope_store_kernel<T, KV, kVec>;
  launch_dependent(kKernel, grid, dim3(kThreads), 0, may_begin_early<kKernel>(0), stream, p);
}

template <typename T, typename KV>
void launch_width(const RopeStoreArgs& args, cudaStream_t stream) {
  constexpr int kVec = kVector<T>;
  const Plan plan = plan_of(args);
  if (takes_vectors(plan, args, kVec)) return launch<T, KV, kVec>(plan, args, stream);
  launch<T, KV, 1>(plan, args, stream);
}

template <typename T>
void launch_cache(const RopeStoreArgs& args, cudaStream_t stream) {
  switch (args.kv.shape.dtype) {
    case DType::kFloat16: return launch_width<T, __half>(args, stream);
    case DType::kBFloat16: return launch_width<T, __nv_bfloat16>(args, stream);
    default: return launch_width<T, float>(args, stream);
  }
}

}  // namespace

void launch_rope_store(const RopeStoreArgs& args, cudaStream_t stream) {
  if (args.q.dim(0) == 0) return;
  switch (args.q.dtype()) {
    case DType::kFloat16: return launch_cache<__half>(args, stream);
    case DType::kBFloat16: return launch_cache<__nv_bfloat16>(args, stream);
    default: return launch_cache<float>(args, stream);
  }
}

}  // namespace octavo::cuda
