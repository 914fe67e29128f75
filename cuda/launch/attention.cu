// Which kernel takes which part of a step's attention.
#include "launch/attention.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "launch/attention_parts.h"

namespace octavo::cuda {
namespace {

constexpr int32_t kFewBlocks = 64;  // decode: below this many of them, latency decides

int32_t ceil_div(int32_t a, int32_t b) { return (a + b - 1) / b; }

bool aligned(const Tensor& tensor, std::initializer_list<int64_t> strides) {
  return reinterpret_cast<uintptr_t>(tensor.data()) % 16 == 0 &&
         std::ranges::all_of(strides, [](int64_t stride) { return stride % 8 == 0; });
}

// Whether rows of 16-bit numbers can be copied 16 bytes at a time, in units of 16 tokens. The
// softmax of the tensor cores' kernels looks for the largest score before it is scaled: scale > 0.
bool takes_tensor_cores(const AttentionArgs& args) {
  const DType dtype = args.q.dtype();
  const KvShape& shape = args.kv.shape;
  return (dtype == DType::kFloat16 || dtype == DType::kBFloat16) && shape.dtype == dtype &&
         shape.head_dim % 8 == 0 && shape.block_size % kUnitTokens == 0 && args.scale > 0.0f &&
         std::isfinite(args.scale) && reinterpret_cast<uintptr_t>(args.kv.data) % 16 == 0 &&
         aligned(args.q, {args.q.stride(0), args.q.stride(1)}) &&
         aligned(args.out, {args.out.stride(0)});
}

AttentionParams shared_params(const AttentionArgs& args, const DeviceBatch& batch) {
  const KvShape& shape = args.kv.shape;
  const int64_t part = int64_t{shape.kv_heads} * shape.block_size * shape.head_dim;
  AttentionParams params{};
  params.q = args.q.data();
  params.q_token_stride = args.q.stride(0);
  params.q_head_stride = args.q.stride(1);
  params.out = args.out.data();
  params.out_token_stride = args.out.stride(0);
  params.cache = args.kv.data;
  params.block_stride = 2 * part;
  params.value_offset = part;
  params.batch = batch;
  params.batch.block_size = shape.block_size;
  params.heads = static_cast<int32_t>(args.q.dim(1));
  params.kv_heads = shape.kv_heads;
  params.group = params.heads / shape.kv_heads;
  params.head_dim = shape.head_dim;
  params.window = args.window;
  params.scale_log2 = args.scale * std::numbers::log2e_v<float>;
  return params;
}

void launch_decode(const AttentionArgs& args, AttentionParams params, bool fast,
                   cudaStream_t stream) {
  if (!fast) {
    params.decode_rows = true;
    params.tile_tokens = 1;
    return launch_generic_attention(args.q.dtype(), args.kv.shape.dtype, params, stream);
  }
  params.head_chunk = std::min(params.group, DecodeShape<64>::kHeads);
  params.head_chunks = ceil_div(params.group, params.head_chunk);
  // Splits cost their sums' way through memory: where there is work enough, they are long ones.
  params.min_split_units = params.batch.num_decode * params.kv_heads < kFewBlocks ? 1 : 16;
  int32_t& splits = params.batch.num_splits;
  if (splits < 1 || int64_t{params.group} * splits > kMaxCombined) splits = 1;
  launch_decode_attention(args.q.dtype(), params, stream);
}

void launch_prefill(const AttentionArgs& args, AttentionParams params, bool fast,
                    cudaStream_t stream) {
  params.tile_tokens =
      query_tile_rows(params.heads, params.kv_heads, params.head_dim, args.q.dtype());
  if (!fast) {
    return launch_generic_attention(args.q.dtype(), args.kv.shape.dtype, params, stream);
  }
  params.head_chunk = std::min(params.group, prefill_rows(params.head_dim));
  params.head_chunks = ceil_div(params.group, params.head_chunk);
  launch_prefill_attention(args.q.dtype(), params, stream);
}

}  // namespace

void launch_attention(const AttentionArgs& args, const DeviceBatch& batch, cudaStream_t stream) {
  if (args.q.dim(0) == 0) return;
  const AttentionParams params = shared_params(args, batch);
  const bool fast = takes_tensor_cores(args);
  if (batch.num_tiles > 0) launch_prefill(args, params, fast, stream);
  if (batch.num_decode > 0) launch_decode(args, params, fast, stream);
}

}  // namespace octavo::cuda
