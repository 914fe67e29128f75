// Causal attention over paged keys and values. Part of kernels.inc, as simd.h.
//
// Keys are visited in chunks of kKeyChunk positions on a fixed grid, with a running maximum and
// total. What happens to a query row in a chunk depends on its position and on the chunk alone, so
// a row's bits do not depend on the rows beside it. A key that a row must not see has weight 0 in
// it, which adds nothing.
//
// bfloat16 stands in pairs (kernel_table.h). Where the instruction set multiplies such pairs,
// queries and weights are rounded to bfloat16 too; sums are float32 always. A chunk of int8 is
// widened before it is met: to bfloat16 where pairs are multiplied, else to float32.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "attention_kernel.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

inline constexpr int kChunkVecs = static_cast<int>(kKeyChunk) / kLanes;
inline constexpr int kTileVecs = 4;  // vectors of keys, or of a value, in registers
#if defined(OCTAVO_ISA_AVX512)
inline constexpr int kQueryRows = 6;  // rows that share a loaded key or value
#elif defined(OCTAVO_ISA_AVX2)
inline constexpr int kQueryRows = 3;
#else
inline constexpr int kQueryRows = 2;
#endif
// Keys [begin, end) of the chunk.
struct KeyRange {
  int64_t begin, end;
};

// The state of the rows of a task, in its scratch.
struct QueryRows {
  float* q;        // [rows, padded]; with dot products bfloat16
  float* sums;     // [rows, padded]: of values, relative to the maximum
  float* weights;  // [rows, kKeyChunk]: scores, then exponentials; with dot products bfloat16
  float* maxima;   // [rows]
  float* totals;   // [rows]
  float* keys;     // a chunk's keys, where it is not read in place
  float* values;   // and its values
  int64_t padded;
};

OCTAVO_INLINE QueryRows query_rows(const AttentionTask& task) {
  const int64_t rows = task.tokens * task.group, padded = padded_head_dim(task.head_dim);
  QueryRows state{};
  state.padded = padded;
  state.q = task.scratch;
  state.sums = state.q + rows * padded;
  state.weights = state.sums + rows * padded;
  state.keys = state.weights + rows * kKeyChunk;
  state.values = state.keys + padded * kKeyChunk;
  state.maxima = state.values + padded * kKeyChunk;
  state.totals = state.maxima + rows;
  return state;
}

// sums [R][kTileVecs] += q at element `d` * the keys' (kUpper: of the upper element of a pair).
template <class E, bool kUpper, int R>
OCTAVO_INLINE void score_step(const E* const (&keys)[kTileVecs], int64_t at,
                              const float* __restrict q, int64_t q_stride,
                              Vec (&sums)[R][kTileVecs]) {
  Vec key[kTileVecs];
#pragma GCC unroll 4
  for (int v = 0; v < kTileVecs; ++v) key[v] = load_weights<E, kUpper>(keys[v] + at);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const Vec value = broadcast(q[r * q_stride]);
#pragma GCC unroll 4
    for (int v = 0; v < kTileVecs; ++v) sums[r][v] = fma(value, key[v], sums[r][v]);
  }
}

#if defined(OCTAVO_ISA_AVX512_BF16)
template <int R>
OCTAVO_INLINE void score_pairs(const BFloat16* const (&keys)[kTileVecs], int64_t key_stride,
                               const float* __restrict q, int64_t q_stride, int64_t pairs,
                               Vec (&sums)[R][kTileVecs]) {
  for (int64_t pair = 0; pair < pairs; ++pair) {
    PairVec key[kTileVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kTileVecs; ++v) key[v] = load_pairs(keys[v] + pair * 2 * key_stride);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const PairVec value = broadcast_pair(q + r * q_stride + pair);
#pragma GCC unroll 4
      for (int v = 0; v < kTileVecs; ++v) {
        sums[r][v] = dot_pairs(sums[r][v], key[v], value);
      }
    }
  }
}
#endif

// scores [R][kKeyChunk] = q * keys * scale, for kTileVecs vectors of keys from vector `vec`.
template <class E, int R>
OCTAVO_INLINE void score_tile(const Chunk<E>& chunk, int vec, const float* __restrict q,
                              int64_t q_stride, int64_t head_dim, float scale,
                              float* __restrict scores) {
  Vec sums[R][kTileVecs] = {};
  const E* keys[kTileVecs];
#pragma GCC unroll 4
  for (int v = 0; v < kTileVecs; ++v) {
    const int64_t key = (vec + v) * kLanes;
    keys[v] = chunk.keys[key / kRun] + key % kRun * (kPaired<E> ? 2 : 1);
  }
  if constexpr (kDots<E>) {
#if defined(OCTAVO_ISA_AVX512_BF16)
    score_pairs<R>(keys, chunk.key_stride, q, q_stride, (head_dim + 1) / 2, sums);
#endif
  } else if constexpr (kPaired<E>) {
    for (int64_t d = 0; d < head_dim; d += 2) {
      score_step<E, false, R>(keys, d * chunk.key_stride, q + d, q_stride, sums);
      if (d + 1 == head_dim) break;
      score_step<E, true, R>(keys, d * chunk.key_stride, q + d + 1, q_stride, sums);
    }
  } else {
    for (int64_t d = 0; d < head_dim; ++d) {
      score_step<E, false, R>(keys, d * chunk.key_stride, q + d, q_stride, sums);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kTileVecs; ++v) {
      store(scores + r * kKeyChunk + (vec + v) * kLanes, sums[r][v] * broadcast(scale));
    }
  }
}

// All ones in the lanes of vector `vec` of a chunk that are in the range.
OCTAVO_INLINE IntVec in_range(KeyRange range, int64_t vec) {
  const IntVec key = lane_index() + static_cast<int32_t>(vec * kLanes);
  return (key >= static_cast<int32_t>(range.begin)) & (key < static_cast<int32_t>(range.end));
}

// The greatest score of a row's own keys; those of other keys become -infinity.
OCTAVO_INLINE float mask_row(float* scores, KeyRange range, int64_t vecs) {
  const Vec lowest = broadcast(-__builtin_inff());
  Vec largest = lowest;
  const bool whole = range.begin == 0 && range.end >= vecs * kLanes;
  for (int64_t v = 0; v < vecs; ++v) {
    Vec score = load(scores + v * kLanes);
    if (!whole) {
      score = select(in_range(range, v), score, lowest);
      store(scores + v * kLanes, score);
    }
    largest = max(score, largest);
  }
  return max_lanes(largest);
}

// The scores [vecs] of a row become its weights, exponentials relative to its maximum. Returns
// their sum.
template <class E>
OCTAVO_INLINE float weigh_row(float* scores, float maximum, int64_t vecs) {
  Vec total{};
  for (int64_t v = 0; v < vecs; ++v) {
    const Vec weight = exp_nonpositive(load(scores + v * kLanes) - broadcast(maximum));
    total = total + weight;
    if constexpr (kDots<E>) {
#if defined(OCTAVO_ISA_AVX512_BF16)
      store_rounded(weight, reinterpret_cast<uint8_t*>(scores + v * kLanes / 2));
#endif
    } else {
      store(scores + v * kLanes, weight);
    }
  }
  return sum_lanes(total);
}

// Scores of R rows become weights; shrink[r] is the factor by which what was summed before
// shrinks. A row without keys in the chunk gets weights 0.
template <class E, int R>
OCTAVO_INLINE void soften_rows(const QueryRows& state, int64_t row, const KeyRange (&ranges)[R],
                               int64_t vecs, float* shrink) {
  static_assert(R <= kLanes);
  Vec change{};
  float maxima[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const float found = mask_row(state.weights + (row + r) * kKeyChunk, ranges[r], vecs);
    const float before = state.maxima[row + r];
    maxima[r] = before > found ? before : found;
    change[r] = before - maxima[r];
  }
  change = exp_nonpositive(change);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    float* weights = state.weights + (row + r) * kKeyChunk;
    if (ranges[r].begin >= ranges[r].end) {
      shrink[r] = 1.0f;
      __builtin_memset(weights, 0, static_cast<size_t>(kKeyChunk) * sizeof(float));
      continue;
    }
    shrink[r] = change[r];
    state.maxima[row + r] = maxima[r];
    const float total = weigh_row<E>(weights, maxima[r], vecs);
    state.totals[row + r] = state.totals[row + r] * shrink[r] + total;
  }
}

template <int R, int V>
OCTAVO_INLINE void weight_step(const Vec (&value)[V], const float* __restrict weights,
                               Vec (&sums)[R][V]) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const Vec weight = broadcast(weights[r * kKeyChunk]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[r][v] = fma(weight, value[v], sums[r][v]);
  }
}

// Elements [V vectors] of the value, or pair of values, at `p`; of a part of a vector where
// `partial` is not 0.
template <class E, int V, bool kUpper>
OCTAVO_INLINE void load_value(const E* p, int64_t partial, Vec (&value)[V]) {
  constexpr int kElements = kPaired<E> ? 2 : 1;
  if (V == 1 && partial != 0) {
    E lanes[kLanes * kElements] = {};
    __builtin_memcpy(lanes, p, static_cast<size_t>(partial * kElements) * sizeof(E));
    value[0] = load_weights<E, kUpper>(lanes);
    return;
  }
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) value[v] = load_weights<E, kUpper>(p + v * kLanes * kElements);
}

#if defined(OCTAVO_ISA_AVX512_BF16)
// sums += weights * values over pairs of positions. The last position of a pair may not exist.
template <int R, int V>
OCTAVO_INLINE void value_pairs(const Chunk<BFloat16>& chunk, KeyRange range, int64_t element,
                               int64_t partial, int64_t head_dim, const float* __restrict weights,
                               Vec (&sums)[R][V]) {
  for (int64_t pair = range.begin / 2; 2 * pair < range.end; ++pair) {
    const BFloat16* p =
        chunk.values[pair / (kRun / 2)] + (pair % (kRun / 2) * head_dim + element) * 2;
    PairVec value[V];
    if (V == 1 && partial != 0) {
      int32_t lanes[kLanes] = {};
      __builtin_memcpy(lanes, p, static_cast<size_t>(partial) * sizeof(int32_t));
      value[0] = load_pairs(lanes);
    } else {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) value[v] = load_pairs(p + v * kLanes * 2);
    }
    if (2 * pair + 1 == range.end) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) value[v] = bits_as<PairVec>(bits_as<IntVec>(value[v]) & 0xffff);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const PairVec weight = broadcast_pair(weights + r * kKeyChunk + pair);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v] = dot_pairs(sums[r][v], value[v], weight);
    }
  }
}
#endif

// sums [R][V vectors] = sums * shrink + weights * values, over keys in the range. `partial`
// elements, or 0 for all, of the last vector exist.
template <class E, int R, int V>
OCTAVO_INLINE void value_tile(const Chunk<E>& chunk, KeyRange range, int64_t element,
                              int64_t partial, int64_t head_dim, const float* __restrict weights,
                              const float* shrink, float* __restrict row_sums, int64_t stride) {
  Vec sums[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      sums[r][v] = load(row_sums + r * stride + element + v * kLanes) * broadcast(shrink[r]);
    }
  }
  if constexpr (kDots<E>) {
#if defined(OCTAVO_ISA_AVX512_BF16)
    value_pairs<R, V>(chunk, range, element, partial, head_dim, weights, sums);
#endif
  } else {
    for (int64_t j = range.begin; j < range.end; ++j) {
      const E* run = chunk.values[j / kRun];
      const E* p = run + value_place<E>(element, j % kRun, head_dim) - (kPaired<E> ? j % 2 : 0);
      Vec value[V];
      if (kPaired<E> && j % 2 != 0) {
        load_value<E, V, true>(p, partial, value);
      } else {
        load_value<E, V, false>(p, partial, value);
      }
      weight_step<R, V>(value, weights + j, sums);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      store(row_sums + r * stride + element + v * kLanes, sums[r][v]);
    }
  }
}

template <class E, int R>
OCTAVO_INLINE void sum_values(const AttentionTask& task, const Chunk<E>& chunk,
                              const QueryRows& state, int64_t row, KeyRange range,
                              const float* shrink) {
  const float* weights = state.weights + row * kKeyChunk;
  float* sums = state.sums + row * state.padded;
  int64_t element = 0;
  for (; element + kTileVecs * kLanes <= task.head_dim; element += kTileVecs * kLanes) {
    value_tile<E, R, kTileVecs>(chunk, range, element, 0, task.head_dim, weights, shrink, sums,
                                state.padded);
  }
  for (; element < task.head_dim; element += kLanes) {
    const int64_t left = task.head_dim - element;
    value_tile<E, R, 1>(chunk, range, element, left < kLanes ? left : 0, task.head_dim, weights,
                        shrink, sums, state.padded);
  }
}

OCTAVO_INLINE KeyRange key_range(const AttentionTask& task, int64_t row, int64_t first) {
  const int64_t position = task.first_position + row / task.group;
  const int64_t start = task.window > 0 ? position - task.window + 1 : 0;
  const int64_t begin = start - first, end = position + 1 - first;
  return {begin < 0 ? 0 : begin, end > kKeyChunk ? kKeyChunk : end};
}

// R rows meet one chunk, and all keys that one of them sees.
template <class E, int R>
void visit_chunk(const AttentionTask& task, const Chunk<E>& chunk, const QueryRows& state,
                 int64_t row, int64_t first) {
  KeyRange ranges[R];
  KeyRange all{kKeyChunk, 0};
  for (int r = 0; r < R; ++r) {
    ranges[r] = key_range(task, row + r, first);
    if (ranges[r].begin >= ranges[r].end) continue;
    if (ranges[r].begin < all.begin) all.begin = ranges[r].begin;
    if (ranges[r].end > all.end) all.end = ranges[r].end;
  }
  if (all.begin >= all.end) return;
  const int64_t vecs = (all.end + kLanes - 1) / kLanes;
  for (int64_t v = 0; v < vecs; v += kTileVecs) {
    score_tile<E, R>(chunk, static_cast<int>(v), state.q + row * state.padded, state.padded,
                     task.head_dim, task.scale, state.weights + row * kKeyChunk);
  }
  float shrink[R];
  soften_rows<E, R>(state, row, ranges, vecs, shrink);
  sum_values<E, R>(task, chunk, state, row, all, shrink);
}

template <class E>
OCTAVO_INLINE void visit_chunk_rows(const AttentionTask& task, const Chunk<E>& chunk,
                                    const QueryRows& state, int64_t row, int64_t rows,
                                    int64_t first) {
  switch (rows) {
    case 1: return visit_chunk<E, 1>(task, chunk, state, row, first);
    case 2: return visit_chunk<E, 2>(task, chunk, state, row, first);
#if defined(OCTAVO_ISA_AVX512) || defined(OCTAVO_ISA_AVX2)
    case 3: return visit_chunk<E, 3>(task, chunk, state, row, first);
#endif
#if defined(OCTAVO_ISA_AVX512)
    case 4: return visit_chunk<E, 4>(task, chunk, state, row, first);
    case 5: return visit_chunk<E, 5>(task, chunk, state, row, first);
    case 6: return visit_chunk<E, 6>(task, chunk, state, row, first);
#endif
  }
}

template <class E>
OCTAVO_INLINE void begin_rows(const AttentionTask& task, const QueryRows& state) {
  const int64_t rows = task.tokens * task.group;
  for (int64_t row = 0; row < rows; ++row) {
    const float* q =
        task.q + row / task.group * task.q_token_stride + row % task.group * task.q_head_stride;
    float* target = state.q + row * state.padded;
    if constexpr (kDots<E>) {
#if defined(OCTAVO_ISA_AVX512_BF16)
      round_row(q, task.head_dim, target);
#endif
    } else {
      __builtin_memcpy(target, q, static_cast<size_t>(task.head_dim) * sizeof(float));
    }
    state.maxima[row] = -__builtin_inff();
    state.totals[row] = 0.0f;
  }
  __builtin_memset(state.sums, 0, static_cast<size_t>(rows * state.padded) * sizeof(float));
}

OCTAVO_INLINE void finish_rows(const AttentionTask& task, const QueryRows& state) {
  for (int64_t row = 0; row < task.tokens * task.group; ++row) {
    float* out =
        task.out + row / task.group * task.out_token_stride + row % task.group * task.head_dim;
    const float* sums = state.sums + row * state.padded;
    const Vec total = broadcast(state.totals[row]);
    for (int64_t d = 0; d < task.head_dim; d += kLanes) {
      store_n(out + d, task.head_dim - d, load(sums + d) / total);
    }
  }
}

template <class E>
void attention(const AttentionTask& task) {
  using S = typename ReadAs<E>::Type;
  const QueryRows state = query_rows(task);
  begin_rows<S>(task, state);
  const int64_t rows = task.tokens * task.group;
  const int64_t tiles = (rows + kQueryRows - 1) / kQueryRows;
  const int64_t keys = task.first_position + task.tokens;
  const int64_t start = task.window > 0 ? task.first_position - task.window + 1 : 0;
  Chunk<S> chunk;
  for (int64_t first = start > 0 ? start / kKeyChunk * kKeyChunk : 0; first < keys;
       first += kKeyChunk) {
    const int64_t count = keys - first < kKeyChunk ? keys - first : kKeyChunk;
    locate_chunk<E, S>(task, first, count, state.keys, state.values, chunk);
    for (int64_t tile = 0; tile < tiles; ++tile) {  // of nearly equal heights
      const int64_t row = rows * tile / tiles, row_end = rows * (tile + 1) / tiles;
      visit_chunk_rows<S>(task, chunk, state, row, row_end - row, first);
    }
  }
  finish_rows(task, state);
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
