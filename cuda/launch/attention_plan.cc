// What the host decides about a step's attention: tiles of prompts, splits of contexts, and which
// shapes are taken at all.
#include <algorithm>

#include "base/check.h"
#include "kernels/attention_shape.cuh"
#include "launch/attention.h"

namespace octavo::cuda {
namespace {

constexpr int32_t kBlocksPerProcessor = 2;  // of the decode kernel, at once
constexpr int32_t kRounds =
    4;  // of blocks: what is left to wait for at the end is a fourth at most

int64_t slots_of(int32_t multiprocessors) {
  return int64_t{kBlocksPerProcessor} * std::max(multiprocessors, 1);
}

}  // namespace

int32_t query_tile_rows(int32_t heads, int32_t kv_heads, int32_t head_dim, DType dtype) {
  if (dtype == DType::kFloat32) return kGenericTileTokens;
  return std::max(1, prefill_rows(head_dim) / (heads / kv_heads));
}

void plan_tiles(const StepMeta& meta, int32_t tile_rows, std::vector<QueryTile>& tiles) {
  const auto first_new = static_cast<std::ptrdiff_t>(tiles.size());
  for (int32_t i = 0; i < meta.num_sequences(); ++i) {
    const auto at = static_cast<size_t>(i);
    const int32_t rows = meta.query_start[at + 1] - meta.query_start[at];
    if (rows == 1) continue;  // a decode sequence
    for (int32_t row = 0; row < rows; row += tile_rows) tiles.push_back({i, row});
  }
  // A tile takes as long as it has keys.
  const auto keys = [&](const QueryTile& tile) {
    const auto at = static_cast<size_t>(tile.sequence);
    const int32_t rows = meta.query_start[at + 1] - meta.query_start[at];
    return meta.context_len[at] - rows + std::min(tile.first_row + tile_rows, rows);
  };
  std::stable_sort(tiles.begin() + first_new, tiles.end(),
                   [&](const QueryTile& a, const QueryTile& b) { return keys(a) > keys(b); });
}

int32_t decode_splits(int32_t num_decode, int32_t kv_heads, int32_t multiprocessors) {
  const int64_t blocks = int64_t{num_decode} * kv_heads, slots = slots_of(multiprocessors);
  if (blocks <= 0) return 1;
  // All at once where that cuts at all; else rounds enough that long contexts do not end alone.
  const int64_t splits =
      2 * blocks <= slots ? slots / blocks : (kRounds * slots + blocks - 1) / blocks;
  return static_cast<int32_t>(std::clamp<int64_t>(splits, 1, kMaxSplits));
}

size_t split_workspace_bytes(int32_t max_decode, int32_t heads, int32_t kv_heads, int32_t head_dim,
                             int32_t multiprocessors) {
  // The greatest num_decode * kv_heads * decode_splits() of more than one split.
  const int64_t rounds = kRounds * slots_of(multiprocessors);
  const int64_t blocks = int64_t{max_decode} * kv_heads;
  const int64_t most = std::min(blocks * kMaxSplits, rounds + std::min(blocks, rounds));
  const int64_t group = heads / kv_heads;
  return static_cast<size_t>(most * group * (head_dim + 2)) * sizeof(float);
}

void check_attention_shape(int32_t heads, const KvShape& shape, DType activations) {
  if (!is_floating(shape.dtype)) {
    throw NotSupported(str_cat("attention: a KV cache of ", dtype_name(shape.dtype),
                               " on CUDA; expected float32, float16 or bfloat16"));
  }
  if (!is_floating(activations)) {
    throw NotSupported(str_cat("attention: activations of ", dtype_name(activations),
                               " on CUDA; expected float32, float16 or bfloat16"));
  }
  if (shape.head_dim < 1 || shape.head_dim > kMaxHeadDim) {
    throw NotSupported(
        str_cat("attention: head_dim ", shape.head_dim, " on CUDA; expected 1 to ", kMaxHeadDim));
  }
  if (shape.kv_heads < 1 || heads < 1 || heads % shape.kv_heads != 0) {
    throw NotSupported(str_cat("attention: ", heads, " heads and ", shape.kv_heads,
                               " KV heads; expected a multiple"));
  }
}

}  // namespace octavo::cuda
