// Attention of prompts on the tensor cores, after FlashAttention-2: a block of threads takes a tile
// of query rows, (token, head) pairs of one KV head, and goes over the keys with a running softmax.
// Keys and values come from the paged cache by asynchronous copies, one tile ahead. 16-bit numbers.
#pragma once

#include "kernels/attention_common.cuh"

namespace octavo::cuda {

extern __shared__ __align__(1024) unsigned char attention_shared[];

// What a block of threads works on. Row r is token r / heads, head r % heads.
struct PrefillTile {
  const int32_t* table;
  int64_t first_token;  // of the batch
  int32_t tokens;
  int32_t first_position;  // of first_token, in the sequence
  int32_t kv_head;
  int32_t first_head;
  int32_t heads;  // of a token: the places of rows
  int32_t real_heads;
  int32_t begin, end;  // positions of keys
};

__device__ __forceinline__ PrefillTile prefill_tile(const AttentionParams& p, int32_t block) {
  const int32_t parts = p.kv_heads * p.head_chunks;
  const QueryTile tile = p.batch.tiles[block / parts];
  const int32_t part = block % parts, chunk = part % p.head_chunks;
  const int32_t start = p.batch.query_start[tile.sequence];
  const int32_t rows = p.batch.query_start[tile.sequence + 1] - start;
  PrefillTile t;
  t.table = p.batch.block_tables + int64_t{tile.sequence} * p.batch.max_blocks;
  t.first_token = int64_t{start} + tile.first_row;
  t.tokens = min(p.tile_tokens, rows - tile.first_row);
  t.first_position = p.batch.context_len[tile.sequence] - rows + tile.first_row;
  t.kv_head = part / p.head_chunks;
  t.first_head = t.kv_head * p.group + chunk * p.head_chunk;
  t.heads = p.head_chunk;
  t.real_heads = min(p.head_chunk, p.group - chunk * p.head_chunk);
  t.begin = p.window == 0 ? 0 : max(0, t.first_position - p.window + 1);
  t.end = t.first_position + t.tokens;
  return t;
}

// Rows [kRows, kDim] of q, zeros where there is none, at `target`.
template <typename T, int kDim>
__device__ __forceinline__ void load_queries(const AttentionParams& p, const PrefillTile& t,
                                             uint32_t target) {
  using Shape = PrefillShape<kDim>;
  constexpr int kChunks = kDim / 8;
  const T* q = static_cast<const T*>(p.q);
  for (int i = threadIdx.x; i < Shape::kRows * kChunks; i += Shape::kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const int token = row / t.heads, head = row % t.heads;
    const bool real = token < t.tokens && head < t.real_heads && chunk * 8 < p.head_dim;
    const int64_t place = (t.first_token + token) * p.q_token_stride +
                          (t.first_head + head) * p.q_head_stride + chunk * 8;
    copy_async_16(target + swizzled<kDim>(row, chunk), real ? q + place : q, real ? 16 : 0);
  }
}

// Where the unit of lane % (kKeys / 16) of the tile at `first` lies; units without keys are not
// looked up, for their places in the table may be anything.
template <int kKeys>
__device__ __forceinline__ int64_t tile_offset(const AttentionParams& p, const PrefillTile& t,
                                               int32_t first) {
  const int32_t unit =
      first / kUnitTokens + static_cast<int32_t>(threadIdx.x % (kKeys / kUnitTokens));
  const int32_t token = unit * kUnitTokens;
  if (token >= t.end || token + kUnitTokens <= t.begin) return 0;
  return unit_offset(p, t.table, unit);
}

// Keys and values [kKeys, kDim] from position `first` on, zeros outside [begin, end).
template <typename T, int kDim>
__device__ __forceinline__ void load_keys(const AttentionParams& p, const PrefillTile& t,
                                          int32_t first, int64_t offset, uint32_t target) {
  using Shape = PrefillShape<kDim>;
  constexpr int kChunks = kDim / 8;
  constexpr int kStep = Shape::kCopyThreads / kChunks;  // rows at a time
  static_assert(kUnitTokens % kStep == 0 && Shape::kCopyThreads % kChunks == 0);
  if (Shape::kCopyThreads < Shape::kThreads && threadIdx.x >= Shape::kCopyThreads) return;
  const int first_row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
  const bool real_chunk = chunk * 8 < p.head_dim;
  // Where nothing is read, the address is still one of the cache.
  const T* source = static_cast<const T*>(p.cache) +
                    (int64_t{t.kv_head} * p.batch.block_size + first_row) * p.head_dim +
                    (real_chunk ? chunk * 8 : 0);
#pragma unroll
  for (int i = 0; i < Shape::kKeys / kStep; ++i) {
    constexpr int kSteps = kUnitTokens / kStep;  // of a unit
    const T* unit = source + __shfl_sync(0xffffffffu, offset, i / kSteps);
    const T* key = unit + i % kSteps * kStep * p.head_dim;
    const int32_t position = first + first_row + i * kStep;
    const uint32_t bytes = real_chunk && position >= t.begin && position < t.end ? 16 : 0;
    const uint32_t place = target + swizzled<kDim>(first_row + i * kStep, chunk);
    copy_async_16(place, key, bytes);
    copy_async_16(place + Shape::kKeys * kDim * 2, key + p.value_offset, bytes);
  }
}

// scores [16 * kRowBlocks, kKeys] of this warp = queries * keys^T
template <typename T, int kDim>
__device__ __forceinline__ void multiply_keys(
    uint32_t queries, uint32_t keys,
    float (&scores)[PrefillShape<kDim>::kRowBlocks][PrefillShape<kDim>::kKeys / 8][4]) {
  using Shape = PrefillShape<kDim>;
  const uint32_t lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < Shape::kRowBlocks; ++r) {
#pragma unroll
    for (int n = 0; n < Shape::kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[r][n][i] = 0.0f;
    }
  }
  const uint32_t a_start = queries + swizzled<kDim>(lane % 16, lane / 16);
  const uint32_t b_start = keys + swizzled<kDim>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    uint32_t a[Shape::kRowBlocks][4];
#pragma unroll
    for (int r = 0; r < Shape::kRowBlocks; ++r) {
      load_matrices(a[r], two_chunks_on<kDim>(a_start, k) + r * 16 * kDim * 2);
    }
#pragma unroll
    for (int n = 0; n < Shape::kKeys / 16; ++n) {
      uint32_t b[4];  // keys 0 to 7: dimensions 0 to 7, 8 to 15; then keys 8 to 15
      load_matrices(b, two_chunks_on<kDim>(b_start, k) + n * 16 * kDim * 2);
#pragma unroll
      for (int r = 0; r < Shape::kRowBlocks; ++r) {
        mma_16x8x16<T>(scores[r][2 * n], a[r], b[0], b[1]);
        mma_16x8x16<T>(scores[r][2 * n + 1], a[r], b[2], b[3]);
      }
    }
  }
}

// out [16 * kRowBlocks, kDim] += weights * values
template <typename T, int kDim>
__device__ __forceinline__ void multiply_values(
    uint32_t values,
    const float (&weights)[PrefillShape<kDim>::kRowBlocks][PrefillShape<kDim>::kKeys / 8][4],
    float (&out)[PrefillShape<kDim>::kRowBlocks][kDim / 8][4]) {
  using Shape = PrefillShape<kDim>;
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t start = values + swizzled<kDim>(lane % 16, lane / 16);
#pragma unroll
  for (int k = 0; k < Shape::kKeys / 16; ++k) {
    uint32_t a[Shape::kRowBlocks][4];
#pragma unroll
    for (int r = 0; r < Shape::kRowBlocks; ++r) {
      a[r][0] = pack_pair<T>(weights[r][2 * k][0], weights[r][2 * k][1]);
      a[r][1] = pack_pair<T>(weights[r][2 * k][2], weights[r][2 * k][3]);
      a[r][2] = pack_pair<T>(weights[r][2 * k + 1][0], weights[r][2 * k + 1][1]);
      a[r][3] = pack_pair<T>(weights[r][2 * k + 1][2], weights[r][2 * k + 1][3]);
    }
#pragma unroll
    for (int n = 0; n < kDim / 16; ++n) {
      uint32_t b[4];  // dimensions 0 to 7: keys 0 to 7, 8 to 15; then dimensions 8 to 15
      load_matrices_transposed(b, two_chunks_on<kDim>(start, n) + k * 16 * kDim * 2);
#pragma unroll
      for (int r = 0; r < Shape::kRowBlocks; ++r) {
        mma_16x8x16<T>(out[r][2 * n], a[r], b[0], b[1]);
        mma_16x8x16<T>(out[r][2 * n + 1], a[r], b[2], b[3]);
      }
    }
  }
}

// Scores of keys that a row does not see become -infinity. `first_row` is the warp's.
template <int kRowBlocks, int kColumns>
__device__ __forceinline__ void mask_scores(const AttentionParams& p, const PrefillTile& t,
                                            int first_row, int32_t first_key,
                                            float (&scores)[kRowBlocks][kColumns][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < kRowBlocks; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + r * 16 + half * 8 + lane / 4;
      const int32_t last = t.first_position + min(row / t.heads, t.tokens - 1);
      const int32_t seen = p.window == 0 ? last + 1 : p.window;
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          // Keys after `last` are huge as unsigned numbers.
          const int32_t back = last - (first_key + n * 8 + lane % 4 * 2 + i);
          if (static_cast<uint32_t>(back) >= static_cast<uint32_t>(seen)) {
            scores[r][n][2 * half + i] = -INFINITY;
          }
        }
      }
    }
  }
}

// The warp's rows, divided by their totals, to `out` through its own rows of the queries' tile.
template <typename T, int kDim>
__device__ __forceinline__ void store_rows(
    const AttentionParams& p, const PrefillTile& t, int first_row, unsigned char* tile,
    const float (&out)[PrefillShape<kDim>::kRowBlocks][kDim / 8][4],
    const RowState (&states)[PrefillShape<kDim>::kRowBlocks]) {
  constexpr int kRows = PrefillShape<kDim>::kRowBlocks * 16;
  constexpr int kChunks = kDim / 8;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < kRows / 16; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = states[r].total[half];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
      const int row = r * 16 + half * 8 + lane / 4;
#pragma unroll
      for (int n = 0; n < kChunks; ++n) {
        const uint32_t pair =
            pack_pair<T>(out[r][n][2 * half] * inverse, out[r][n][2 * half + 1] * inverse);
        *reinterpret_cast<uint32_t*>(tile + swizzled<kDim>(row, n) + lane % 4 * 4) = pair;
      }
    }
  }
  __syncwarp();
  for (int i = lane; i < kRows * kChunks; i += 32) {
    const int row = i / kChunks, chunk = i % kChunks;
    const int token = (first_row + row) / t.heads, head = (first_row + row) % t.heads;
    if (token >= t.tokens || head >= t.real_heads || chunk * 8 >= p.head_dim) continue;
    T* target = static_cast<T*>(p.out) + (t.first_token + token) * p.out_token_stride +
                int64_t{t.first_head + head} * p.head_dim + chunk * 8;
    *reinterpret_cast<uint4*>(target) =
        *reinterpret_cast<const uint4*>(tile + swizzled<kDim>(row, chunk));
  }
}

// Grid: tiles * kv_heads * head_chunks, the tiles slowest, so that long ones begin first.
template <typename T, int kDim>
__global__ void __launch_bounds__(PrefillShape<kDim>::kThreads,
                                  PrefillShape<kDim>::kBlocksPerProcessor)
    prefill_attention_kernel(const __grid_constant__ AttentionParams p) {
  using Shape = PrefillShape<kDim>;
  constexpr uint32_t kStageBytes = 2 * Shape::kKeys * kDim * 2;
  const PrefillTile t = prefill_tile(p, static_cast<int32_t>(blockIdx.x));
  const int first_row = static_cast<int>(threadIdx.x) / 32 * Shape::kRowBlocks * 16;
  unsigned char* own_rows = attention_shared + first_row * kDim * 2;
  const uint32_t queries = shared_address(own_rows);
  const uint32_t stages = shared_address(attention_shared) + Shape::kRows * kDim * 2;

  // Tiles of keys begin at multiples of kKeys: what a row sums up, in which order, is the same in
  // every tile of rows, for tiles that it does not see change nothing.
  int32_t first_key = t.begin / Shape::kKeys * Shape::kKeys;
  int64_t offset = tile_offset<Shape::kKeys>(p, t, first_key);
  load_queries<T, kDim>(p, t, shared_address(attention_shared));
  load_keys<T, kDim>(p, t, first_key, offset, stages);
  commit_copies();
  offset = tile_offset<Shape::kKeys>(p, t, first_key + Shape::kKeys);

  float out[Shape::kRowBlocks][kDim / 8][4] = {};
  RowState states[Shape::kRowBlocks];
  const int32_t last_position = t.end - 1;
  // Of the warp's rows.
  const int32_t warp_last =
      t.first_position + min((first_row + Shape::kRowBlocks * 16 - 1) / t.heads, t.tokens - 1);
  const bool has_rows = first_row < t.tokens * t.heads;
  for (uint32_t stage = 0; first_key < t.end; first_key += Shape::kKeys, stage ^= 1) {
    wait_copies<0>();
    // All see this tile, and none is still at the tile that the next copies overwrite.
    __syncthreads();
    if (first_key + Shape::kKeys < t.end) {
      load_keys<T, kDim>(p, t, first_key + Shape::kKeys, offset,
                         stages + (stage ^ 1) * kStageBytes);
      commit_copies();
      offset = tile_offset<Shape::kKeys>(p, t, first_key + 2 * Shape::kKeys);
    }
    if (!has_rows || first_key > warp_last) continue;
    const uint32_t keys = stages + stage * kStageBytes;
    float scores[Shape::kRowBlocks][Shape::kKeys / 8][4];
    multiply_keys<T, kDim>(queries, keys, scores);
    if (first_key + Shape::kKeys - 1 > t.first_position ||
        (p.window != 0 && first_key <= last_position - p.window)) {
      mask_scores(p, t, first_row, first_key, scores);
    }
#pragma unroll
    for (int r = 0; r < Shape::kRowBlocks; ++r) {
      update_softmax(scores[r], out[r], states[r], p.scale_log2);
    }
    multiply_values<T, kDim>(keys + Shape::kKeys * kDim * 2, scores, out);
  }
  if (has_rows) store_rows<T, kDim>(p, t, first_row, own_rows, out, states);
}

}  // namespace octavo::cuda
