// Attention of single query rows over long contexts, limited by the memory that keys and values are
// read from. A block of threads takes up to 16 query heads of one KV head and one split of the
// context; each of its warps goes by itself over every kWarps-th unit of 16 keys, its copies two
// units ahead. The tensor cores' 16 rows are the query heads. 16-bit numbers.
//
// Results of splits are put together by the block of threads that is the last to finish, in the
// order of the splits.
#pragma once

#include "kernels/attention_common.cuh"
#include "kernels/dependent.cuh"

namespace octavo::cuda {

extern __shared__ __align__(1024) unsigned char attention_shared[];

// What a block of threads works on.
struct DecodeWork {
  const int32_t* table;
  int64_t token;  // of the batch
  int32_t place;  // among the decode sequences
  int32_t kv_head;
  int32_t first_head, heads;      // query heads
  int32_t split, splits;          // that have keys
  int32_t begin, end;             // positions of the sequence's keys
  int32_t first_unit, last_unit;  // of the split, [first, last)
};

// `warps` units at a time is what a block of threads takes.
__device__ __forceinline__ DecodeWork decode_work(const AttentionParams& p, int32_t warps) {
  const auto splits = p.batch.num_splits, x = static_cast<int32_t>(blockIdx.x);
  const int32_t chunk = x / splits;
  DecodeWork w;
  w.place = static_cast<int32_t>(blockIdx.z);
  w.kv_head = static_cast<int32_t>(blockIdx.y);
  const int32_t sequence = p.batch.decode_sequences[w.place];
  w.table = p.batch.block_tables + int64_t{sequence} * p.batch.max_blocks;
  w.token = p.batch.query_start[sequence];
  w.first_head = w.kv_head * p.group + chunk * p.head_chunk;
  w.heads = min(p.head_chunk, p.group - chunk * p.head_chunk);
  w.split = x % splits;
  w.end = p.batch.context_len[sequence];
  w.begin = p.window == 0 ? 0 : max(0, w.end - p.window);
  const int32_t first = w.begin / kUnitTokens;
  const int32_t units = (w.end + kUnitTokens - 1) / kUnitTokens - first;
  int32_t each = max((units + splits - 1) / splits, p.min_split_units);
  each = (each + warps - 1) / warps * warps;
  w.splits = (units + each - 1) / each;
  w.first_unit = first + w.split * each;
  w.last_unit = first + min(units, (w.split + 1) * each);
  return w;
}

// Keys and values [16, kDim] of a unit, zeros outside [begin, end), by one warp.
template <typename T, int kDim>
__device__ __forceinline__ void load_unit(const AttentionParams& p, const DecodeWork& w,
                                          int32_t unit, int64_t offset, uint32_t target) {
  constexpr int kChunks = kDim / 8;
  constexpr int kRows = 32 / kChunks;  // at a time: with 96 dimensions eight lanes have none
  const int lane = threadIdx.x % 32;
  if (kRows * kChunks < 32 && lane >= kRows * kChunks) return;
  const int first_row = lane / kChunks, chunk = lane % kChunks;
  const bool real_chunk = chunk * 8 < p.head_dim;
  // Where nothing is read, the address is still one of the cache.
  const T* key = static_cast<const T*>(p.cache) + offset +
                 (int64_t{w.kv_head} * p.batch.block_size + first_row) * p.head_dim +
                 (real_chunk ? chunk * 8 : 0);
  const int32_t step = kRows * p.head_dim;
#pragma unroll
  for (int i = 0; i < kUnitTokens / kRows; ++i, key += step) {
    const int32_t position = unit * kUnitTokens + first_row + i * kRows;
    const uint32_t bytes = real_chunk && position >= w.begin && position < w.end ? 16 : 0;
    const uint32_t place = target + swizzled<kDim>(first_row + i * kRows, chunk);
    copy_async_16(place, key, bytes);
    copy_async_16(place + DecodeShape<kDim>::kUnitBytes, key + p.value_offset, bytes);
  }
}

// The query heads as fragments of 16 rows, zeros where there is none.
template <typename T, int kDim>
__device__ __forceinline__ void load_query(const AttentionParams& p, const DecodeWork& w,
                                           uint32_t (&q)[kDim / 16][4]) {
  const int lane = threadIdx.x % 32;
  const T* start = static_cast<const T*>(p.q) + w.token * p.q_token_stride;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int head = lane / 4 + i % 2 * 8;
    const T* row = start + (w.first_head + head) * p.q_head_stride;
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const int column = k * 16 + i / 2 * 8 + lane % 4 * 2;
      const bool real = head < w.heads && column < p.head_dim;
      q[k][i] = real ? *reinterpret_cast<const uint32_t*>(row + column) : 0;
    }
  }
}

// One unit of keys: scores, running softmax, weighted values.
template <typename T, int kDim>
__device__ __forceinline__ void attend_unit(const AttentionParams& p, const DecodeWork& w,
                                            int32_t unit, uint32_t keys,
                                            const uint32_t (&q)[kDim / 16][4],
                                            float (&out)[kDim / 8][4], RowState& state) {
  const uint32_t lane = threadIdx.x % 32;
  float scores[2][4] = {};
  const uint32_t k_start = keys + swizzled<kDim>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    uint32_t b[4];  // keys 0 to 7: dimensions 0 to 7, 8 to 15; then keys 8 to 15
    load_matrices(b, two_chunks_on<kDim>(k_start, k));
    mma_16x8x16<T>(scores[0], q[k], b[0], b[1]);
    mma_16x8x16<T>(scores[1], q[k], b[2], b[3]);
  }
  const int32_t first = unit * kUnitTokens;
  if (first < w.begin || first + kUnitTokens > w.end) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int32_t position = first + n * 8 + static_cast<int32_t>(lane) % 4 * 2 + i % 2;
        if (position < w.begin || position >= w.end) scores[n][i] = -INFINITY;
      }
    }
  }
  update_softmax(scores, out, state, p.scale_log2);
  const uint32_t a[4] = {
      pack_pair<T>(scores[0][0], scores[0][1]), pack_pair<T>(scores[0][2], scores[0][3]),
      pack_pair<T>(scores[1][0], scores[1][1]), pack_pair<T>(scores[1][2], scores[1][3])};
  const uint32_t v_start =
      keys + DecodeShape<kDim>::kUnitBytes + swizzled<kDim>(lane % 16, lane / 16);
#pragma unroll
  for (int n = 0; n < kDim / 16; ++n) {
    uint32_t b[4];  // dimensions 0 to 7: keys 0 to 7, 8 to 15; then dimensions 8 to 15
    load_matrices_transposed(b, two_chunks_on<kDim>(v_start, n));
    mma_16x8x16<T>(out[2 * n], a, b[0], b[1]);
    mma_16x8x16<T>(out[2 * n + 1], a, b[2], b[3]);
  }
}

// A warp's part of the split: units first_unit + warp, then every kWarps-th.
template <typename T, int kDim>
__device__ __forceinline__ void attend_units(const AttentionParams& p, const DecodeWork& w,
                                             float (&out)[kDim / 8][4], RowState& state) {
  using Shape = DecodeShape<kDim>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int32_t first = w.first_unit + warp;
  const int32_t count =
      first < w.last_unit ? (w.last_unit - first + Shape::kWarps - 1) / Shape::kWarps : 0;
  const uint32_t stages = shared_address(attention_shared) + warp * Shape::kWarpBytes;
  // Places of the next 32 units, one a lane.
  const auto look_up = [&](int32_t index) {
    const int32_t i = index + lane;
    return i < count ? unit_offset(p, w.table, first + i * Shape::kWarps) : 0;
  };
  int64_t offsets = look_up(0);
  const auto load = [&](int32_t i) {
    if (i < count) {
      if (i % 32 == 0 && i != 0) offsets = look_up(i);
      const int64_t offset = __shfl_sync(0xffffffffu, offsets, i % 32);
      load_unit<T, kDim>(p, w, first + i * Shape::kWarps, offset,
                         stages + i % Shape::kStages * 2 * Shape::kUnitBytes);
    }
    commit_copies();  // an empty group, too: groups are counted
  };
#pragma unroll
  for (int i = 0; i < Shape::kStages - 1; ++i) load(i);
  uint32_t q[kDim / 16][4];
  load_query<T, kDim>(p, w, q);
  for (int32_t i = 0; i < count; ++i) {
    load(i + Shape::kStages - 1);  // over the stage that the last round has read
    wait_copies<Shape::kStages - 1>();
    __syncwarp();
    attend_unit<T, kDim>(p, w, first + i * Shape::kWarps,
                         stages + i % Shape::kStages * 2 * Shape::kUnitBytes, q, out, state);
    __syncwarp();
  }
  wait_copies<0>();
}

// Four numbers of a query head's row of `out`.
template <typename T>
__device__ __forceinline__ void store_four(const AttentionParams& p, int64_t token, int32_t head,
                                           int32_t column, const float (&value)[4]) {
  T* target = static_cast<T*>(p.out) + token * p.out_token_stride + int64_t{head} * p.head_dim;
  *reinterpret_cast<uint2*>(target + column) =
      make_uint2(pack_pair<T>(value[0], value[1]), pack_pair<T>(value[2], value[3]));
}

// Where a split's sums are, of one query head: [num_decode, heads, splits, head_dim], and after all
// of them the scaled largest scores and totals, [num_decode, heads, splits, 2].
__device__ __forceinline__ int64_t split_place(const AttentionParams& p, const DecodeWork& w,
                                               int32_t head, int32_t split) {
  return (int64_t{w.place} * p.heads + head) * p.batch.num_splits + split;
}
__device__ __forceinline__ float2* split_totals(const AttentionParams& p) {
  return reinterpret_cast<float2*>(p.batch.split_state + int64_t{p.batch.num_decode} * p.heads *
                                                             p.batch.num_splits * p.head_dim);
}

// The warps' sums become the split's: the result itself, where there is but one split.
template <typename T, int kDim>
__device__ __forceinline__ void join_warps(const AttentionParams& p, const DecodeWork& w,
                                           const float (&out)[kDim / 8][4], const RowState& state) {
  using Shape = DecodeShape<kDim>;
  constexpr int kStride = kDim + 8;  // rows of a fragment's columns in different banks
  static_assert(Shape::kHeads * kStride * 4 <= Shape::kWarpBytes);
  __shared__ float2 totals[Shape::kWarps][Shape::kHeads];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float* sums = reinterpret_cast<float*>(attention_shared + warp * Shape::kWarpBytes);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = state.total[half];
    total += __shfl_xor_sync(0xffffffffu, total, 1);
    total += __shfl_xor_sync(0xffffffffu, total, 2);
    const int row = half * 8 + lane / 4;
    if (lane % 4 == 0) {
      totals[warp][row] = make_float2(__fmul_rn(state.largest[half], p.scale_log2), total);
    }
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      *reinterpret_cast<float2*>(sums + row * kStride + n * 8 + lane % 4 * 2) =
          make_float2(out[n][2 * half], out[n][2 * half + 1]);
    }
  }
  __syncthreads();
  const int columns = p.head_dim / 4;
  for (int i = threadIdx.x; i < w.heads * columns; i += Shape::kThreads) {
    const int row = i / columns, column = i % columns * 4;
    float largest = -INFINITY, total = 0.0f, value[4] = {};
#pragma unroll
    for (int other = 0; other < Shape::kWarps; ++other) {
      largest = fmaxf(largest, totals[other][row].x);
    }
#pragma unroll
    for (int other = 0; other < Shape::kWarps; ++other) {
      const float factor = exp2_fast(totals[other][row].x - largest);
      const float4 part = *reinterpret_cast<const float4*>(
          attention_shared + other * Shape::kWarpBytes + (row * kStride + column) * 4);
      total = fmaf(factor, totals[other][row].y, total);
      value[0] = fmaf(factor, part.x, value[0]);
      value[1] = fmaf(factor, part.y, value[1]);
      value[2] = fmaf(factor, part.z, value[2]);
      value[3] = fmaf(factor, part.w, value[3]);
    }
    if (w.splits == 1) {
      for (float& x : value) x /= total;
      store_four<T>(p, w.token, w.first_head + row, column, value);
      continue;
    }
    const int64_t place = split_place(p, w, w.first_head + row, w.split);
    *reinterpret_cast<float4*>(p.batch.split_state + place * p.head_dim + column) =
        make_float4(value[0], value[1], value[2], value[3]);
    if (column == 0) split_totals(p)[place] = make_float2(largest, total);
  }
}

// Whether this block of threads is the last of its sequence and KV head; the counter is zero again.
__device__ __forceinline__ bool is_last_split(const AttentionParams& p, const DecodeWork& w) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t* done = p.batch.split_done + int64_t{w.place} * p.kv_heads + w.kv_head;
    last = atomicAdd(done, 1) == w.splits * p.head_chunks - 1;
    if (last) *done = 0;
  }
  __syncthreads();
  __threadfence();
  return last;
}

// All heads of the group from the sums of their splits.
template <typename T, int kDim>
__device__ __forceinline__ void join_splits(const AttentionParams& p, const DecodeWork& w) {
  using Shape = DecodeShape<kDim>;
  float* weights = reinterpret_cast<float*>(attention_shared);  // [group, splits]
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int32_t group_start = w.kv_head * p.group;
  for (int head = warp; head < p.group; head += Shape::kWarps) {
    const float2* totals = split_totals(p) + split_place(p, w, group_start + head, 0);
    float largest = -INFINITY, total = 0.0f;
    for (int i = lane; i < w.splits; i += 32) largest = fmaxf(largest, __ldcg(totals + i).x);
    for (int i = 16; i > 0; i /= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, i));
    }
    for (int i = lane; i < w.splits; i += 32) {
      const float2 part = __ldcg(totals + i);
      const float factor = exp2_fast(part.x - largest);
      weights[head * w.splits + i] = factor;
      total = fmaf(factor, part.y, total);
    }
    for (int i = 16; i > 0; i /= 2) total += __shfl_xor_sync(0xffffffffu, total, i);
    for (int i = lane; i < w.splits; i += 32) weights[head * w.splits + i] /= total;
  }
  __syncthreads();
  const int columns = p.head_dim / 4;
  for (int i = threadIdx.x; i < p.group * columns; i += Shape::kThreads) {
    const int head = i / columns, column = i % columns * 4;
    const float* sums =
        p.batch.split_state + split_place(p, w, group_start + head, 0) * p.head_dim + column;
    float value[4] = {};
#pragma unroll 8
    for (int split = 0; split < w.splits; ++split) {
      const float4 part =
          __ldcg(reinterpret_cast<const float4*>(sums + int64_t{split} * p.head_dim));
      const float weight = weights[head * w.splits + split];
      value[0] = fmaf(weight, part.x, value[0]);
      value[1] = fmaf(weight, part.y, value[1]);
      value[2] = fmaf(weight, part.z, value[2]);
      value[3] = fmaf(weight, part.w, value[3]);
    }
    store_four<T>(p, w.token, group_start + head, column, value);
  }
}

// Grid: (head_chunks * num_splits, kv_heads, num_decode)
template <typename T, int kDim>
__global__ void __launch_bounds__(DecodeShape<kDim>::kThreads)
    decode_attention_kernel(const __grid_constant__ AttentionParams p) {
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const DecodeWork w = decode_work(p, DecodeShape<kDim>::kWarps);
  if (w.end == 0 && w.split == 0) {  // a row that pads the batch
    const int columns = p.head_dim / 4;
    const float zeros[4] = {};
    for (int i = threadIdx.x; i < w.heads * columns; i += DecodeShape<kDim>::kThreads) {
      store_four<T>(p, w.token, w.first_head + i / columns, i % columns * 4, zeros);
    }
  }
  if (w.split >= w.splits) return;
  float out[kDim / 8][4] = {};
  RowState state;
  attend_units<T, kDim>(p, w, out, state);
  join_warps<T, kDim>(p, w, out, state);
  if (w.splits == 1 || !is_last_split(p, w)) return;
  join_splits<T, kDim>(p, w);
}

}  // namespace octavo::cuda
