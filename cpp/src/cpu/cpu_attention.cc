// The words of the CPU back end that touch the KV cache, whose layout is in kernel_table.h.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "cpu/cpu_backend.h"

namespace octavo {
namespace {

constexpr int64_t kTileRows = 24;  // query rows of a task, heads of the group together

int64_t block_elements(const KvShape& shape) {
  return shape.kv_heads * (kv_key_elements(shape.dtype, shape.head_dim, shape.block_size) +
                           kv_value_elements(shape.dtype, shape.head_dim, shape.block_size));
}

std::byte* block_address(const KvLayer& kv, int64_t block) {
  return static_cast<std::byte*>(kv.data) +
         block * block_elements(kv.shape) * static_cast<int64_t>(dtype_size(kv.shape.dtype));
}

AttentionTask attention_task(const AttentionArgs& args) {
  const KvShape& shape = args.kv.shape;
  AttentionTask task{};
  task.q_token_stride = args.q.stride(0);
  task.q_head_stride = args.q.stride(1);
  task.out_token_stride = args.out.stride(0);
  task.kv = args.kv.data;
  task.block_elements = block_elements(shape);
  task.block_size = shape.block_size;
  task.kv_heads = shape.kv_heads;
  task.head_dim = shape.head_dim;
  task.group = args.q.dim(1) / shape.kv_heads;
  task.scale = args.scale;
  task.window = args.window;
  return task;
}

}  // namespace

size_t CpuBackend::kv_block_bytes(const KvShape& shape) const {
  return static_cast<size_t>(block_elements(shape)) * dtype_size(shape.dtype);
}

void CpuBackend::begin_step(const StepMeta& meta) {
  const auto sequences = static_cast<size_t>(meta.num_sequences());
  OCTAVO_CHECK(meta.block_size > 0, "begin_step: block_size is ", meta.block_size,
               "; expected at least 1");
  OCTAVO_CHECK(meta.query_start.size() == sequences + 1 && meta.query_start.front() == 0 &&
                   meta.query_start.back() == meta.num_tokens,
               "begin_step: query_start; expected sequences + 1 rows from 0 to num_tokens");
  OCTAVO_CHECK(meta.block_tables.size() >= sequences * static_cast<size_t>(meta.max_blocks),
               "begin_step: block_tables has ", meta.block_tables.size(),
               " ids; expected sequences * max_blocks");
  for (size_t i = 0; i < sequences; ++i) {
    const int32_t rows = meta.query_start[i + 1] - meta.query_start[i];
    OCTAVO_CHECK(rows >= 0 && meta.context_len[i] >= rows &&
                     meta.context_len[i] <= int64_t{meta.max_blocks} * meta.block_size,
                 "begin_step: sequence ", i, " has ", rows, " rows and a context of ",
                 meta.context_len[i], "; expected rows <= context <= max_blocks * block_size");
  }
  meta_ = meta;
  tiles_group_ = 0;
}

void CpuBackend::plan_attention(int32_t group) {
  if (tiles_group_ == group) return;
  tiles_group_ = group;
  tiles_.clear();
  const auto tile_tokens = static_cast<int32_t>(std::max<int64_t>(1, kTileRows / group));
  for (int32_t i = 0; i < meta_.num_sequences(); ++i) {
    const int32_t begin = meta_.query_start[static_cast<size_t>(i)];
    const int32_t end = meta_.query_start[static_cast<size_t>(i) + 1];
    const int32_t first_position = meta_.context_len[static_cast<size_t>(i)] - (end - begin);
    for (int32_t token = begin; token < end; token += tile_tokens) {
      tiles_.push_back({.sequence = i,
                        .token = token,
                        .tokens = std::min(tile_tokens, end - token),
                        .first_position = first_position + (token - begin)});
    }
  }
  // The longest first, so that the last tasks to end are short ones.
  std::sort(tiles_.begin(), tiles_.end(), [](const QueryTile& a, const QueryTile& b) {
    const int64_t cost_a = int64_t{a.first_position + a.tokens} * a.tokens;
    const int64_t cost_b = int64_t{b.first_position + b.tokens} * b.tokens;
    return cost_a != cost_b ? cost_a > cost_b : a.token < b.token;
  });
}

void CpuBackend::attention(const AttentionArgs& args) {
  check_args(args);
  OCTAVO_CHECK(args.q.dtype() == DType::kFloat32, "attention: q is ", dtype_name(args.q.dtype()),
               "; expected float32");
  OCTAVO_CHECK(args.q.dim(0) == meta_.num_tokens && args.kv.shape.block_size == meta_.block_size,
               "attention: ", args.q.dim(0), " rows and blocks of ", args.kv.shape.block_size,
               "; expected those of begin_step, ", meta_.num_tokens, " and ", meta_.block_size);
  const AttentionTask whole = attention_task(args);
  plan_attention(static_cast<int32_t>(whole.group));
  const int64_t tile_rows = std::max(kTileRows, whole.group);
  reserve_scratch(attention_scratch_floats(tile_rows, whole.head_dim));
  const auto kernel = kernels_.attention[static_cast<int>(args.kv.shape.dtype)];
  const auto run_task = [&](int64_t index, int32_t thread) {
    const QueryTile& tile = tiles_[static_cast<size_t>(index / whole.kv_heads)];
    AttentionTask task = whole;
    task.kv_head = index % whole.kv_heads;
    const int64_t head = task.kv_head * task.group;
    task.q = args.q.row<float>(tile.token) + head * task.q_head_stride;
    task.out = args.out.row<float>(tile.token) + head * task.head_dim;
    task.block_table = meta_.block_tables.data() + int64_t{tile.sequence} * meta_.max_blocks;
    task.tokens = tile.tokens;
    task.first_position = tile.first_position;
    task.scratch = scratch(thread);
    kernel(task);
  };
  pool_.parallel_for(static_cast<int64_t>(tiles_.size()) * whole.kv_heads, run_task);
}

void CpuBackend::rope_store(const RopeStoreArgs& args) {
  check_args(args);
  OCTAVO_CHECK(args.q.dtype() == DType::kFloat32, "rope_store: q is ", dtype_name(args.q.dtype()),
               "; expected float32");
  const KvShape& shape = args.kv.shape;
  RopeStoreTask whole{};
  whole.q_head_stride = args.q.stride(1);
  whole.k_head_stride = args.k.stride(1);
  whole.v_head_stride = args.v.stride(1);
  whole.heads = args.q.dim(1);
  whole.kv_heads = shape.kv_heads;
  whole.head_dim = shape.head_dim;
  whole.block_size = shape.block_size;
  whole.rotary_dim = args.cos_sin ? args.cos_sin.dim(1) : 0;
  const auto kernel = kernels_.rope_store[static_cast<int>(shape.dtype)];
  const int64_t tokens = args.q.dim(0);
  const int64_t work = tokens * shape.head_dim * (whole.heads + 4 * whole.kv_heads);
  for_each_row(tokens, work, [&](int64_t token) {
    const int32_t slot = args.slots.as<int32_t>()[token];
    OCTAVO_CHECK(slot >= 0, "rope_store: slot ", slot, "; expected 0 or more");
    RopeStoreTask task = whole;
    task.q = args.q.row<float>(token);
    task.k = args.k.row<float>(token);
    task.v = args.v.row<float>(token);
    task.block = block_address(args.kv, slot / shape.block_size);
    task.place = slot % shape.block_size;
    if (args.cos_sin) {
      const int32_t row = args.cos_sin_rows.as<int32_t>()[token];
      OCTAVO_CHECK(row >= 0 && row < args.cos_sin.dim(0), "rope_store: row ", row,
                   " of cos_sin; expected less than ", args.cos_sin.dim(0));
      task.cos_sin = args.cos_sin.row<float>(row);
    }
    kernel(task);
  });
}

void CpuBackend::copy_blocks(std::span<const KvLayer> layers, std::span<const BlockCopy> copies) {
  if (copies.empty()) return;
  pool_.parallel_for(static_cast<int64_t>(layers.size()), [&](int64_t index) {
    const KvLayer& layer = layers[static_cast<size_t>(index)];
    const size_t bytes = kv_block_bytes(layer.shape);
    for (const BlockCopy& copy : copies) {
      OCTAVO_CHECK(copy.source >= 0 && copy.target >= 0, "copy_blocks: from ", copy.source, " to ",
                   copy.target, "; expected block ids");
      std::memmove(block_address(layer, copy.target), block_address(layer, copy.source), bytes);
    }
  });
}

}  // namespace octavo
