// Causal attention over paged keys and values. Part of kernels.inc, as simd.h.
//
// Keys are visited in chunks of kKeyChunk positions on a fixed grid, with a running maximum and
// total. What happens to a query row in a chunk depends on its position and on the chunk alone, so
// a row's bits do not depend on the rows beside it.
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

// Keys [begin, end) of the chunk are a row's own.
struct KeyRange {
  int64_t begin, end;
};

// The state of the rows of a task, in its scratch.
struct QueryRows {
  float* q;       // [rows, padded]
  float* sums;    // [rows, padded]: of values, relative to the maximum
  float* scores;  // [rows, kKeyChunk]: then exponentials
  float* maxima;  // [rows]
  float* totals;  // [rows]
  float* keys;    // [padded, kKeyChunk]: a chunk's keys where blocks are no multiple of a vector
  int64_t padded;
};

OCTAVO_INLINE QueryRows query_rows(const AttentionTask& task) {
  const int64_t rows = task.tokens * task.group, padded = padded_head_dim(task.head_dim);
  QueryRows state{};
  state.padded = padded;
  state.q = task.scratch;
  state.sums = state.q + rows * padded;
  state.scores = state.sums + rows * padded;
  state.keys = state.scores + rows * kKeyChunk;
  state.maxima = state.keys + padded * kKeyChunk;
  state.totals = state.maxima + rows;
  return state;
}

// Where the keys and values of one chunk lie.
template <class E>
struct Chunk {
  const E* keys[kChunkVecs];   // [head_dim][stride] at the vector's first position
  int64_t key_stride;          // 0: in QueryRows::keys
  const E* values[kKeyChunk];  // [head_dim]
};

template <class E>
OCTAVO_INLINE const E* block_keys(const AttentionTask& task, int64_t position) {
  const int64_t block = task.block_table[position / task.block_size];
  return static_cast<const E*>(task.kv) + block * task.block_elements +
         task.kv_head * task.head_dim * task.block_size;
}

// Keys of odd block sizes, one by one, as float32 [head_dim][kKeyChunk].
template <class E>
void gather_keys(const AttentionTask& task, int64_t first, int64_t count, float* keys) {
  for (int64_t j = 0; j < count; ++j) {
    const E* source = block_keys<E>(task, first + j) + (first + j) % task.block_size;
    for (int64_t d = 0; d < task.head_dim; ++d) {
      keys[d * kKeyChunk + j] = load_element(source + d * task.block_size);
    }
  }
}

// The chunk at position `first`, of which `count` keys exist. Vectors beyond them point at the
// first one, for their scores are never used.
template <class E>
void locate_chunk(const AttentionTask& task, int64_t first, int64_t count, const QueryRows& state,
                  Chunk<E>& chunk) {
  const int64_t value_offset = task.kv_heads * task.head_dim * task.block_size;
  for (int64_t j = 0; j < count; ++j) {
    const int64_t place = (first + j) % task.block_size;
    const E* keys = block_keys<E>(task, first + j);
    chunk.values[j] = keys + value_offset + place * task.head_dim;
    if (j % kLanes == 0) chunk.keys[j / kLanes] = keys + place;
  }
  for (int64_t v = (count + kLanes - 1) / kLanes; v < kChunkVecs; ++v)
    chunk.keys[v] = chunk.keys[0];
  chunk.key_stride = task.block_size % kLanes == 0 ? task.block_size : 0;
  if (chunk.key_stride == 0) gather_keys<E>(task, first, count, state.keys);
}

// scores [R][kKeyChunk] = q * keys * scale, for kTileVecs vectors of keys.
template <class E, int R>
OCTAVO_INLINE void score_tile(const E* const* keys, int64_t key_stride, const float* __restrict q,
                              int64_t q_stride, int64_t head_dim, float scale,
                              float* __restrict scores) {
  Vec sums[R][kTileVecs] = {};
  const E* key0 = keys[0];
  const E* key1 = keys[1];
  const E* key2 = keys[2];
  const E* key3 = keys[3];
  for (int64_t d = 0; d < head_dim; ++d) {
    const int64_t at = d * key_stride;
    const Vec key[kTileVecs] = {load(key0 + at), load(key1 + at), load(key2 + at), load(key3 + at)};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec value = broadcast(q[r * q_stride + d]);
#pragma GCC unroll 4
      for (int v = 0; v < kTileVecs; ++v) sums[r][v] = fma(value, key[v], sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kTileVecs; ++v) {
      store(scores + r * kKeyChunk + v * kLanes, sums[r][v] * broadcast(scale));
    }
  }
}

template <class E, int R>
OCTAVO_INLINE void score_rows(const AttentionTask& task, const Chunk<E>& chunk,
                              const QueryRows& state, int64_t row, int64_t vecs) {
  const float* q = state.q + row * state.padded;
  for (int64_t v = 0; v < vecs; v += kTileVecs) {
    float* scores = state.scores + row * kKeyChunk + v * kLanes;
    if (chunk.key_stride != 0) {
      score_tile<E, R>(chunk.keys + v, chunk.key_stride, q, state.padded, task.head_dim, task.scale,
                       scores);
    } else {
      const float* keys[kTileVecs];
      for (int i = 0; i < kTileVecs; ++i) keys[i] = state.keys + (v + i) * kLanes;
      score_tile<float, R>(keys, kKeyChunk, q, state.padded, task.head_dim, task.scale, scores);
    }
  }
}

// Scores of keys in the range become exponentials, all others 0. Returns the factor by which what
// was summed before shrinks.
OCTAVO_INLINE float soften_row(const QueryRows& state, int64_t row, KeyRange range, int64_t vecs) {
  float* scores = state.scores + row * kKeyChunk;
  const Vec lowest = broadcast(-__builtin_inff());
  const IntVec lanes = lane_index();
  Vec masked[kChunkVecs];
  Vec largest = lowest;
  for (int v = 0; v < vecs; ++v) {
    const IntVec key = lanes + v * kLanes;
    const IntVec inside =
        (key >= static_cast<int32_t>(range.begin)) & (key < static_cast<int32_t>(range.end));
    masked[v] = select(inside, load(scores + v * kLanes), lowest);
    largest = max(masked[v], largest);
  }
  const float chunk_maximum = max_lanes(largest);
  const float before = state.maxima[row];
  const float maximum = before > chunk_maximum ? before : chunk_maximum;
  Vec total{};
  for (int v = 0; v < vecs; ++v) {
    const IntVec key = lanes + v * kLanes;
    const IntVec inside =
        (key >= static_cast<int32_t>(range.begin)) & (key < static_cast<int32_t>(range.end));
    const Vec e = select(inside, exp(masked[v] - broadcast(maximum)), Vec{});
    store(scores + v * kLanes, e);
    total = total + e;
  }
  const float shrink = exp(broadcast(before - maximum))[0];
  state.maxima[row] = maximum;
  state.totals[row] = state.totals[row] * shrink + sum_lanes(total);
  return shrink;
}

// sums [R][V vectors] = sums * shrink + weights * values, over keys [begin, end) of the chunk.
// `partial` elements, or 0 for all, of the last vector exist.
template <class E, int R, int V>
OCTAVO_INLINE void value_tile(const Chunk<E>& chunk, KeyRange range, int64_t element,
                              int64_t partial, const float* __restrict weights, const float* shrink,
                              float* __restrict row_sums, int64_t stride) {
  Vec sums[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      sums[r][v] = load(row_sums + r * stride + element + v * kLanes) * broadcast(shrink[r]);
    }
  }
  for (int64_t j = range.begin; j < range.end; ++j) {
    const E* value = chunk.values[j] + element;
    Vec loaded[V];
    if (V == 1 && partial != 0) {
      loaded[0] = load_partial(value, partial);
    } else {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) loaded[v] = load(value + v * kLanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec weight = broadcast(weights[r * kKeyChunk + j]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v] = fma(weight, loaded[v], sums[r][v]);
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
  const float* weights = state.scores + row * kKeyChunk;
  float* sums = state.sums + row * state.padded;
  int64_t element = 0;
  for (; element + kTileVecs * kLanes <= task.head_dim; element += kTileVecs * kLanes) {
    value_tile<E, R, kTileVecs>(chunk, range, element, 0, weights, shrink, sums, state.padded);
  }
  for (; element < task.head_dim; element += kLanes) {
    const int64_t left = task.head_dim - element;
    value_tile<E, R, 1>(chunk, range, element, left < kLanes ? left : 0, weights, shrink, sums,
                        state.padded);
  }
}

OCTAVO_INLINE KeyRange key_range(const AttentionTask& task, int64_t row, int64_t first) {
  const int64_t position = task.first_position + row / task.group;
  const int64_t start = task.window > 0 ? position - task.window + 1 : 0;
  const int64_t begin = start - first, end = position + 1 - first;
  return {begin < 0 ? 0 : begin, end > kKeyChunk ? kKeyChunk : end};
}

// R rows meet one chunk. Where they see the same keys, they share the loads of values.
template <class E, int R>
void visit_chunk(const AttentionTask& task, const Chunk<E>& chunk, const QueryRows& state,
                 int64_t row, int64_t first) {
  KeyRange ranges[R];
  bool same = true;
  bool any = false;
  int64_t last_key = 0;
  for (int r = 0; r < R; ++r) {
    ranges[r] = key_range(task, row + r, first);
    same = same && ranges[r].begin == ranges[0].begin && ranges[r].end == ranges[0].end;
    any = any || ranges[r].begin < ranges[r].end;
    last_key = ranges[r].end > last_key ? ranges[r].end : last_key;
  }
  if (!any) return;
  const int64_t vecs = (last_key + kLanes - 1) / kLanes;
  score_rows<E, R>(task, chunk, state, row, vecs);
  float shrink[R];
  for (int r = 0; r < R; ++r) {
    if (ranges[r].begin >= ranges[r].end) continue;
    shrink[r] = soften_row(state, row + r, ranges[r], vecs);
    if (!same) sum_values<E, 1>(task, chunk, state, row + r, ranges[r], shrink + r);
  }
  if (same) sum_values<E, R>(task, chunk, state, row, ranges[0], shrink);
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

OCTAVO_INLINE void begin_rows(const AttentionTask& task, const QueryRows& state) {
  const int64_t rows = task.tokens * task.group;
  for (int64_t row = 0; row < rows; ++row) {
    const float* q =
        task.q + row / task.group * task.q_token_stride + row % task.group * task.q_head_stride;
    __builtin_memcpy(state.q + row * state.padded, q,
                     static_cast<size_t>(task.head_dim) * sizeof(float));
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
  const QueryRows state = query_rows(task);
  begin_rows(task, state);
  const int64_t rows = task.tokens * task.group;
  const int64_t tiles = (rows + kQueryRows - 1) / kQueryRows;
  const int64_t keys = task.first_position + task.tokens;
  const int64_t start = task.window > 0 ? task.first_position - task.window + 1 : 0;
  Chunk<E> chunk;
  for (int64_t first = start > 0 ? start / kKeyChunk * kKeyChunk : 0; first < keys;
       first += kKeyChunk) {
    locate_chunk<E>(task, first, keys - first < kKeyChunk ? keys - first : kKeyChunk, state, chunk);
    for (int64_t tile = 0; tile < tiles; ++tile) {  // of nearly equal heights
      const int64_t row = rows * tile / tiles, row_end = rows * (tile + 1) / tiles;
      visit_chunk_rows<E>(task, chunk, state, row, row_end - row, first);
    }
  }
  finish_rows(task, state);
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
