// Where a chunk of a sequence's keys and values lies: in the cache, or in a copy where blocks are
// no multiple of a run, or hold int8. Part of kernels.inc, as simd.h.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "kv_chunk.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

// Positions whose keys, and whose values, follow each other in a chunk.
inline constexpr int64_t kRun = 16;
inline constexpr int kChunkRuns = static_cast<int>(kKeyChunk / kRun);

#if defined(OCTAVO_ISA_AVX512_BF16)
template <class E>
inline constexpr bool kDots = kPaired<E>;
using WideInt8 = BFloat16;
#else
template <class E>
inline constexpr bool kDots = false;
using WideInt8 = float;
#endif

// What the kernel reads of a cache of E.
template <class E>
struct ReadAs {
  using Type = E;
};
template <>
struct ReadAs<Int8> {
  using Type = WideInt8;
};

// Where the keys and values of one chunk lie. Both are at the first position of each run.
template <class E>
struct Chunk {
  const E* keys[kChunkRuns];    // as in a block
  const E* values[kChunkRuns];  // as in a block
  int64_t key_stride;           // positions of a block
};

template <class E>
OCTAVO_INLINE const E* block_address(const AttentionTask& task, int64_t position) {
  const int64_t block = task.block_table[position / task.block_size];
  return static_cast<const E*>(task.kv) + block * task.block_elements;
}

// The KV head's keys and values in a block.
template <class E>
OCTAVO_INLINE int64_t head_keys(const AttentionTask& task) {
  return task.kv_head * kv_key_elements(kDType<E>, task.head_dim, task.block_size);
}
template <class E>
OCTAVO_INLINE int64_t head_values(const AttentionTask& task) {
  return task.kv_heads * kv_key_elements(kDType<E>, task.head_dim, task.block_size) +
         task.kv_head * kv_value_elements(kDType<E>, task.head_dim, task.block_size);
}

// The scales of a head's keys, or of its values.
OCTAVO_INLINE const float* key_scales(const AttentionTask& task, const Int8* keys) {
  const Int8* end = keys + kv_key_elements(DType::kInt8, task.head_dim, task.block_size);
  return reinterpret_cast<const float*>(end) - task.block_size;
}
OCTAVO_INLINE const float* value_scales(const AttentionTask& task, const Int8* values) {
  const Int8* end = values + kv_value_elements(DType::kInt8, task.head_dim, task.block_size);
  return reinterpret_cast<const float*>(end) - task.block_size;
}

// Keys and values one by one, as a block of kKeyChunk positions of S.
template <class E, class S>
void gather_chunk(const AttentionTask& task, int64_t first, int64_t count, S* keys, S* values) {
  const auto elements = static_cast<size_t>(padded_head_dim(task.head_dim) * kKeyChunk);
  __builtin_memset(keys, 0, elements * sizeof(S));
  __builtin_memset(values, 0, elements * sizeof(S));
  const int64_t key_offset = head_keys<E>(task), value_offset = head_values<E>(task);
  for (int64_t j = 0; j < count; ++j) {
    const E* block = block_address<E>(task, first + j);
    const int64_t place = (first + j) % task.block_size;
    const auto copy = [&](const E* from, S* to, float scale) {
      if constexpr (kDType<E> == DType::kInt8) {
        store_element(to, static_cast<float>(from->number) * scale);
      } else {
        *to = *from;
      }
    };
    float key_scale = 1, value_scale = 1;
    if constexpr (kDType<E> == DType::kInt8) {
      key_scale = key_scales(task, block + key_offset)[place];
      value_scale = value_scales(task, block + value_offset)[place];
    }
    for (int64_t d = 0; d < task.head_dim; ++d) {
      copy(block + key_offset + key_place<E>(d, place, task.block_size),
           keys + key_place<S>(d, j, kKeyChunk), key_scale);
      copy(block + value_offset + value_place<E>(d, place, task.head_dim),
           values + value_place<S>(d, j, task.head_dim), value_scale);
    }
  }
}

#if defined(OCTAVO_ISA_AVX512_BF16)
// 32 integers, each times its scale, as bfloat16.
OCTAVO_INLINE void widen_pairs(const Int8* from, Vec lower_scale, Vec upper_scale, BFloat16* to) {
  const Vec lower = load_small<int8_t>(reinterpret_cast<const uint8_t*>(from), 0);
  const Vec upper = load_small<int8_t>(reinterpret_cast<const uint8_t*>(from), 1);
  const auto pairs = _mm512_cvtne2ps_pbh(upper * upper_scale, lower * lower_scale);
  __builtin_memcpy(to, &pairs, sizeof pairs);
}

// As gather_chunk, a run of positions at a time.
OCTAVO_INLINE void widen_chunk(const AttentionTask& task, int64_t first, int64_t count,
                               BFloat16* keys, BFloat16* values) {
  const IntVec twice = lane_index() >> 1;  // each scale for a pair of lanes
  for (int64_t j = 0; j < count; j += kRun) {
    const Int8* block = block_address<Int8>(task, first + j);
    const int64_t place = (first + j) % task.block_size;
    const Int8* key = block + head_keys<Int8>(task);
    const Int8* value = block + head_values<Int8>(task);
    // The scales of positions that do not exist may be anything.
    const int64_t left = count - j < kRun ? count - j : kRun;
    const Vec of_keys = load_n(key_scales(task, key) + place, left);
    const Vec of_values = load_n(value_scales(task, value) + place, left);
    const Vec lower = __builtin_shuffle(of_keys, twice);
    const Vec upper = __builtin_shuffle(of_keys, twice + 8);
    for (int64_t pair = 0; 2 * pair < task.head_dim; ++pair) {
      widen_pairs(key + (pair * task.block_size + place) * 2, lower, upper,
                  keys + (pair * kKeyChunk + j) * 2);
    }
    for (int64_t pair = 0; 2 * pair < left; ++pair) {
      const Vec scale =
          __builtin_shuffle(of_values, (lane_index() & 1) + static_cast<int32_t>(2 * pair));
      const Int8* from = value + (place / 2 + pair) * task.head_dim * 2;
      BFloat16* to = values + (j / 2 + pair) * task.head_dim * 2;
      for (int64_t d = 0; d < task.head_dim; d += kLanes) {
        widen_pairs(from + d * 2, scale, scale, to + d * 2);
      }
    }
  }
}
#endif

template <class E, class S>
OCTAVO_INLINE void copy_chunk(const AttentionTask& task, int64_t first, int64_t count, S* keys,
                              S* values) {
#if defined(OCTAVO_ISA_AVX512_BF16)
  if constexpr (kDType<E> == DType::kInt8) {
    if (task.block_size % kRun == 0 && task.head_dim % kLanes == 0) {
      return widen_chunk(task, first, count, keys, values);
    }
  }
#endif
  gather_chunk<E, S>(task, first, count, keys, values);
}

// The chunk at position `first`, of which `count` keys exist, as S: in place, or copied to the room
// for a chunk's keys and values. Runs beyond them point at the
// first one, for their scores are never used.
template <class E, class S>
void locate_chunk(const AttentionTask& task, int64_t first, int64_t count, float* key_room,
                  float* value_room, Chunk<S>& chunk) {
  constexpr bool kWidened = kDType<E> == DType::kInt8;
  const bool whole_runs = task.block_size % kRun == 0;
  const int64_t runs = (count + kRun - 1) / kRun;
  if constexpr (!kWidened) {
    if (whole_runs) {
      chunk.key_stride = task.block_size;
      const int64_t key_offset = head_keys<E>(task), value_offset = head_values<E>(task);
      for (int64_t run = 0; run < runs; ++run) {
        const E* block = block_address<E>(task, first + run * kRun);
        const int64_t place = (first + run * kRun) % task.block_size;
        chunk.keys[run] = block + key_offset + key_place<E>(0, place, task.block_size);
        chunk.values[run] = block + value_offset + value_place<E>(0, place, task.head_dim);
      }
    }
  }
  if (kWidened || !whole_runs) {
    chunk.key_stride = kKeyChunk;
    S* keys = reinterpret_cast<S*>(key_room);
    S* values = reinterpret_cast<S*>(value_room);
    copy_chunk<E, S>(task, first, count, keys, values);
    for (int64_t run = 0; run < runs; ++run) {
      chunk.keys[run] = keys + key_place<S>(0, run * kRun, kKeyChunk);
      chunk.values[run] = values + value_place<S>(0, run * kRun, task.head_dim);
    }
  }
  for (int64_t run = runs; run < kChunkRuns; ++run) chunk.keys[run] = chunk.keys[0];
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
