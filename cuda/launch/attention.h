// Launchers of the words on the paged KV cache. A block of one layer's cache is
// [2 (keys, values)][kv_heads][block_size][head_dim] of KvShape::dtype, contiguous, 16-byte
// aligned; a key of head h at slot s lies in block s / block_size at place s % block_size. Step
// thread; asynchronous on `stream`.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <vector>

#include "backend/op_args.h"

namespace octavo::cuda {

// One tile of a prompt's query rows, for the prefill kernel.
struct QueryTile {
  int32_t sequence;
  int32_t first_row;  // of the tile, within the sequence's rows of this step
};

// The ragged batch as kernels see it: what a step's begin_step uploads. Device pointers.
//
// Sequences with one row in the step ("decode") and all others ("prefill") take different kernels.
// A decode sequence with context_len 0 is a row that only pads a captured batch: its output is 0.
struct DeviceBatch {
  const int32_t* query_start;       // [sequences + 1]: rows of the batch
  const int32_t* context_len;       // [sequences]: tokens with keys, this step's included
  const int32_t* block_tables;      // [sequences, max_blocks]
  const int32_t* decode_sequences;  // [num_decode]: indices of the sequences of one row
  const QueryTile* tiles;           // [num_tiles], the longest first
  int32_t num_decode;
  int32_t num_tiles;
  int32_t max_blocks;   // the stride of block_tables
  int32_t block_size;   // 16
  int32_t num_splits;   // parts of a decode sequence's context, of which each is a block of threads
  float* split_state;   // workspace of split_workspace_bytes(): partial results of splits
  int32_t* split_done;  // [num_decode * kv_heads] counters, zero before and after each launch
};

// Query rows of a tile: GQA's heads of a KV head are packed, so a tile of fewer tokens is as full.
int32_t query_tile_rows(int32_t heads, int32_t kv_heads, int32_t head_dim, DType dtype);

// The tiles of a batch in host memory. Appends to `tiles`.
void plan_tiles(const StepMeta& meta, int32_t tile_rows, std::vector<QueryTile>& tiles);

// How many parts a decode batch's contexts are cut into: enough to fill `multiprocessors`, at least
// 1, at most kMaxSplits. It does not depend on the contexts, so that a captured step can be
// replayed.
inline constexpr int32_t kMaxSplits = 64;
int32_t decode_splits(int32_t num_decode, int32_t kv_heads, int32_t multiprocessors);

// Bytes of DeviceBatch::split_state for any batch of at most `max_decode` sequences.
size_t split_workspace_bytes(int32_t max_decode, int32_t heads, int32_t kv_heads, int32_t head_dim,
                             int32_t multiprocessors);

// Rows whose slot is negative are rotated and not stored.
void launch_rope_store(const RopeStoreArgs& args, cudaStream_t stream);
void launch_attention(const AttentionArgs& args, const DeviceBatch& batch, cudaStream_t stream);

// Copies whole blocks of one layer: source[i] to target[i], in order, for i = 0..count. `copies` is
// device memory.
void launch_copy_blocks(void* layer, size_t block_bytes, const BlockCopy* copies, int32_t count,
                        cudaStream_t stream);

// Throws NotSupported, beginning with "attention: ", where the kernels have no variant.
void check_attention_shape(int32_t heads, const KvShape& shape, DType activations);

}  // namespace octavo::cuda
