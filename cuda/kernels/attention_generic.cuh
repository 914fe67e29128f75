// Attention for every case that the tensor cores' kernels do not take: any floating dtypes, any
// head_dim, any alignment. A block of threads takes four rows, (token, head) pairs of one KV head;
// its warps share the keys, eight at a time, and put their sums together at the end. What is summed
// up for a row, in which order, depends on its position alone.
#pragma once

#include "kernels/attention_common.cuh"
#include "kernels/dependent.cuh"

namespace octavo::cuda {

// What a block of threads works on. Row r is token r / group, head r % group.
struct GenericWork {
  const int32_t* table;
  int64_t first_token;  // of the batch
  int32_t first_position;
  int32_t kv_head;
  int32_t rows, first_row;
  int32_t begin, end;  // positions of keys that some row sees
};

// quads: of rows, in a tile.
__device__ __forceinline__ GenericWork generic_work(const AttentionParams& p, int32_t quads,
                                                    bool decode) {
  const int32_t block = static_cast<int32_t>(blockIdx.x);
  const int32_t item = block / quads / p.kv_heads;
  const QueryTile tile =
      decode ? QueryTile{p.batch.decode_sequences[item], 0} : p.batch.tiles[item];
  const int32_t start = p.batch.query_start[tile.sequence];
  const int32_t rows = p.batch.query_start[tile.sequence + 1] - start;
  const int32_t tokens = min(p.tile_tokens, rows - tile.first_row);
  GenericWork w;
  w.table = p.batch.block_tables + int64_t{tile.sequence} * p.batch.max_blocks;
  w.first_token = int64_t{start} + tile.first_row;
  w.first_position = p.batch.context_len[tile.sequence] - rows + tile.first_row;
  w.kv_head = block / quads % p.kv_heads;
  w.rows = tokens * p.group;
  w.first_row = block % quads * kGenericRows;
  const int32_t last_row = min(w.first_row + kGenericRows, w.rows) - 1;
  const int32_t first = w.first_position + w.first_row / p.group;
  w.begin = p.window == 0 ? 0 : max(0, first - p.window + 1);
  w.end = w.first_position + last_row / p.group + 1;
  return w;
}

// A row's running sums in one warp: `largest` and `total` of row lane % 4, `total` of this lane's
// keys only; sums of all rows, dimensions lane + 32 * i.
template <int kPer>
struct GenericState {
  float largest = -INFINITY;
  float total = 0.0f;
  float sums[kGenericRows][kPer] = {};
};

// Lane l gets the sum over all lanes of values[l]: in each step lanes that differ in bit kStep
// exchange the halves that the other one keeps.
template <int kStep>
__device__ __forceinline__ void transposed_sum(float (&values)[32]) {
  const bool upper = (threadIdx.x & kStep) != 0;
#pragma unroll
  for (int i = 0; i < kStep; ++i) {
    const float kept = upper ? values[i + kStep] : values[i];
    const float sent = upper ? values[i] : values[i + kStep];
    values[i] = kept + __shfl_xor_sync(0xffffffffu, sent, kStep);
  }
  if constexpr (kStep > 1) transposed_sum<kStep / 2>(values);
}

// Eight keys from position `first` on. `place` is, in lane i, where key i lies.
template <typename KV, int kPer>
__device__ __forceinline__ void attend_keys(const AttentionParams& p, const GenericWork& w,
                                            int32_t first, int64_t place,
                                            const float (&q)[kGenericRows][kPer],
                                            GenericState<kPer>& state) {
  const int lane = threadIdx.x % 32;
  const KV* cache = static_cast<const KV*>(p.cache);
  float products[32];
#pragma unroll
  for (int j = 0; j < kGenericKeys; ++j) {
    const int64_t offset = __shfl_sync(0xffffffffu, place, j);
    const bool real = first + j >= w.begin && first + j < w.end;
    float key[kPer];
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int d = lane + 32 * i;
      key[i] = real && d < p.head_dim ? to_float(cache[offset + d]) : 0.0f;
    }
#pragma unroll
    for (int r = 0; r < kGenericRows; ++r) {
      float product = 0.0f;
#pragma unroll
      for (int i = 0; i < kPer; ++i) product = fmaf(q[r][i], key[i], product);
      products[j * kGenericRows + r] = product;
    }
  }
  // From here on a lane has key lane / 4 and row lane % 4.
  transposed_sum<16>(products);
  float score = products[0] * p.scale_log2;
  const int32_t row = min(w.first_row + lane % kGenericRows, w.rows - 1);
  const int32_t last = w.first_position + row / p.group;
  const int32_t position = first + lane / kGenericRows;
  if (position > last || position < w.begin || (p.window != 0 && position <= last - p.window)) {
    score = -INFINITY;
  }
  float largest = fmaxf(state.largest, score);
#pragma unroll
  for (int i = kGenericRows; i < 32; i *= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, i));
  }
  const float taken = largest == -INFINITY ? 0.0f : largest;  // infinity minus itself is no number
  const float shrink = exp2f(state.largest - taken);
  const float weight = exp2f(score - taken);
  state.largest = largest;
  state.total = fmaf(state.total, shrink, weight);
#pragma unroll
  for (int r = 0; r < kGenericRows; ++r) {
    const float factor = __shfl_sync(0xffffffffu, shrink, r);
#pragma unroll
    for (int i = 0; i < kPer; ++i) state.sums[r][i] *= factor;
  }
#pragma unroll
  for (int j = 0; j < kGenericKeys; ++j) {
    const int64_t offset = __shfl_sync(0xffffffffu, place, j) + p.value_offset;
    const bool real = first + j >= w.begin && first + j < w.end;
    float value[kPer];
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int d = lane + 32 * i;
      value[i] = real && d < p.head_dim ? to_float(cache[offset + d]) : 0.0f;
    }
#pragma unroll
    for (int r = 0; r < kGenericRows; ++r) {
      const float of_row = __shfl_sync(0xffffffffu, weight, j * kGenericRows + r);
#pragma unroll
      for (int i = 0; i < kPer; ++i) state.sums[r][i] = fmaf(of_row, value[i], state.sums[r][i]);
    }
  }
}

// Where the key of `position` lies, 0 where there is none.
__device__ __forceinline__ int64_t key_place(const AttentionParams& p, const GenericWork& w,
                                             int32_t position) {
  if (position < w.begin || position >= w.end) return 0;
  const int32_t size = p.batch.block_size;
  return w.table[position / size] * p.block_stride +
         (int64_t{w.kv_head} * size + position % size) * p.head_dim;
}

template <typename T, int kPer>
__device__ __forceinline__ void store_generic(const AttentionParams& p, const GenericWork& w,
                                              GenericState<kPer>& state) {
  __shared__ float sums[kGenericWarps][kGenericRows][32 * kPer];
  __shared__ float largest[kGenericWarps][kGenericRows], totals[kGenericWarps][kGenericRows];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int i = kGenericRows; i < 32; i *= 2) {
    state.total += __shfl_xor_sync(0xffffffffu, state.total, i);
  }
  if (lane < kGenericRows) {
    largest[warp][lane] = state.largest;
    totals[warp][lane] = state.total;
  }
#pragma unroll
  for (int r = 0; r < kGenericRows; ++r) {
#pragma unroll
    for (int i = 0; i < kPer; ++i) sums[warp][r][lane + 32 * i] = state.sums[r][i];
  }
  __syncthreads();
  const int rows = min(kGenericRows, w.rows - w.first_row);
  for (int i = threadIdx.x; i < rows * p.head_dim; i += kGenericWarps * 32) {
    const int row = i / p.head_dim, d = i % p.head_dim;
    float most = -INFINITY, total = 0.0f, sum = 0.0f;
    for (int other = 0; other < kGenericWarps; ++other) most = fmaxf(most, largest[other][row]);
    for (int other = 0; other < kGenericWarps; ++other) {
      // A warp without keys for the row has totals of zero, or of NaN.
      const float factor =
          largest[other][row] == -INFINITY ? 1.0f : exp2f(largest[other][row] - most);
      total = fmaf(factor, totals[other][row], total);
      sum = fmaf(factor, sums[other][row][d], sum);
    }
    const int32_t token = (w.first_row + row) / p.group, head = (w.first_row + row) % p.group;
    T* out = static_cast<T*>(p.out) + (w.first_token + token) * p.out_token_stride +
             int64_t{w.kv_head * p.group + head} * p.head_dim;
    out[d] = from_float<T>(total == 0.0f ? 0.0f : sum / total);
  }
}

// Grid: sequences or tiles * kv_heads * quads. head_dim is at most 32 * kPer.
template <typename T, typename KV, int kPer>
__global__ void __launch_bounds__(kGenericWarps * 32, 1)
    generic_attention_kernel(const __grid_constant__ AttentionParams p) {
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const bool decode = p.decode_rows;
  const int32_t quads = (p.tile_tokens * p.group + kGenericRows - 1) / kGenericRows;
  const GenericWork w = generic_work(p, quads, decode);
  if (w.first_row >= w.rows) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float q[kGenericRows][kPer];
#pragma unroll
  for (int r = 0; r < kGenericRows; ++r) {
    const int32_t row = min(w.first_row + r, w.rows - 1);
    const T* source = static_cast<const T*>(p.q) +
                      (w.first_token + row / p.group) * p.q_token_stride +
                      (w.kv_head * p.group + row % p.group) * p.q_head_stride;
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int d = lane + 32 * i;
      q[r][i] = d < p.head_dim ? to_float(source[d]) : 0.0f;
    }
  }
  GenericState<kPer> state;
  // Warps take keys by their positions, so that a row's sums are the same in every tile.
  constexpr int kRound = kGenericKeys * kGenericWarps;
  for (int32_t first = w.begin / kRound * kRound + warp * kGenericKeys; first < w.end;
       first += kRound) {
    if (first + kGenericKeys <= w.begin) continue;
    const int64_t place = lane < kGenericKeys ? key_place(p, w, first + lane) : 0;
    attend_keys<KV, kPer>(p, w, first, place, q, state);
  }
  store_generic<T, kPer>(p, w, state);
}

}  // namespace octavo::cuda
