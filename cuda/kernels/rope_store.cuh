// Rotation of queries and keys in place, and the store of keys and values into the paged cache.
// Memory-bound and short: one launch, 16 bytes a thread where the tensors' alignment allows it.
#pragma once

#include <cstdint>

#include "kernels/dependent.cuh"
#include "kernels/vec.cuh"

namespace octavo::cuda {

// Strides in elements. Items of a token, of kVec elements each: pairs of q's heads; pairs and the
// rest of k's heads; v's heads.
struct RopeStoreParams {
  void *q, *k;    // [tokens, heads or kv_heads, head_dim]
  const void* v;  // [tokens, kv_heads, head_dim]
  int64_t q_token_stride, q_head_stride;
  int64_t k_token_stride, k_head_stride;
  int64_t v_token_stride, v_head_stride;
  const float* cos_sin;         // [rows, rotary_dim]
  int64_t cos_sin_stride;       // of a row
  const int32_t* cos_sin_rows;  // [tokens]
  const int32_t* slots;         // [tokens]
  void* cache;                  // [blocks][2][kv_heads][block_size][head_dim]
  int64_t block_stride, value_offset;
  int32_t block_size, kv_heads, head_dim, half;  // half of rotary_dim
  int32_t pair_items, key_items, value_items;    // of a head
  int32_t q_items, k_items, items;               // of a token: q's, q's and k's, all
};

// kVec elements, as few instructions as their bytes allow: both sides are aligned to the vector's
// size, up to 16 bytes.
template <typename T, int kVec>
__device__ __forceinline__ void load_floats(const T* source, float (&out)[kVec]) {
  if constexpr (kVec == kVector<T>) {
    load_vector(source, out);
  } else if constexpr (kVec == 2 * kVector<T>) {
    float low[kVec / 2], high[kVec / 2];
    load_vector(source, low);
    load_vector(source + kVec / 2, high);
#pragma unroll
    for (int i = 0; i < kVec / 2; ++i) {
      out[i] = low[i];
      out[i + kVec / 2] = high[i];
    }
  } else {
#pragma unroll
    for (int i = 0; i < kVec; ++i) out[i] = to_float(source[i]);
  }
}

template <typename T, int kVec>
__device__ __forceinline__ void store_floats(T* target, const float (&values)[kVec]) {
  if constexpr (kVec == kVector<T>) {
    store_vector(target, values);
  } else if constexpr (kVec == 8 && sizeof(T) == 4) {
    *reinterpret_cast<float4*>(target) = make_float4(values[0], values[1], values[2], values[3]);
    *reinterpret_cast<float4*>(target + 4) =
        make_float4(values[4], values[5], values[6], values[7]);
  } else if constexpr (kVec == 4 && sizeof(T) == 2) {
    *reinterpret_cast<uint2*>(target) =
        make_uint2(pack_pair<T>(values[0], values[1]), pack_pair<T>(values[2], values[3]));
  } else {
#pragma unroll
    for (int i = 0; i < kVec; ++i) target[i] = from_float<T>(values[i]);
  }
}

// Elements [i, i + kVec) of a head and those `half` on are rotated.
template <typename T, int kVec>
__device__ __forceinline__ void rotate_pair(const RopeStoreParams& p, int32_t token, T* head, int i,
                                            float (&first)[kVec], float (&second)[kVec]) {
  float cosines[kVec], sines[kVec];
  const float* row = p.cos_sin + p.cos_sin_rows[token] * p.cos_sin_stride;
  load_floats<float, kVec>(row + i, cosines);
  load_floats<float, kVec>(row + p.half + i, sines);
  load_floats<T, kVec>(head + i, first);
  load_floats<T, kVec>(head + p.half + i, second);
#pragma unroll
  for (int j = 0; j < kVec; ++j) {
    const float x = first[j], y = second[j];
    first[j] = x * cosines[j] - y * sines[j];
    second[j] = y * cosines[j] + x * sines[j];
  }
  store_floats<T, kVec>(head + i, first);
  store_floats<T, kVec>(head + p.half + i, second);
}

// Where the key of a head lies, for a slot that is not negative.
__device__ __forceinline__ int64_t key_of_slot(const RopeStoreParams& p, int32_t slot,
                                               int32_t head) {
  return slot / p.block_size * p.block_stride +
         (int64_t{head} * p.block_size + slot % p.block_size) * p.head_dim;
}

// Grid: (tokens, parts of a token's items)
template <typename T, typename KV, int kVec>
__global__ void __launch_bounds__(256)
    rope_store_kernel(const __grid_constant__ RopeStoreParams p) {
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const auto token = static_cast<int32_t>(blockIdx.x);
  int32_t item = static_cast<int32_t>(blockIdx.y * blockDim.x + threadIdx.x);
  if (item >= p.items) return;
  if (item < p.q_items) {
    float first[kVec], second[kVec];
    T* head =
        static_cast<T*>(p.q) + token * p.q_token_stride + item / p.pair_items * p.q_head_stride;
    rotate_pair<T, kVec>(p, token, head, item % p.pair_items * kVec, first, second);
    return;
  }
  const int32_t slot = p.slots[token];
  KV* cache = static_cast<KV*>(p.cache);
  if (item < p.k_items) {
    item -= p.q_items;
    const int32_t kv_head = item / p.key_items, place = item % p.key_items;
    T* head = static_cast<T*>(p.k) + token * p.k_token_stride + kv_head * p.k_head_stride;
    KV* key = slot < 0 ? nullptr : cache + key_of_slot(p, slot, kv_head);
    float first[kVec];
    if (place < p.pair_items) {
      float second[kVec];
      rotate_pair<T, kVec>(p, token, head, place * kVec, first, second);
      if (slot < 0) return;
      store_floats<KV, kVec>(key + place * kVec, first);
      store_floats<KV, kVec>(key + p.half + place * kVec, second);
    } else if (slot >= 0) {
      const int i = 2 * p.half + (place - p.pair_items) * kVec;
      load_floats<T, kVec>(head + i, first);
      store_floats<KV, kVec>(key + i, first);
    }
    return;
  }
  if (slot < 0) return;
  item -= p.k_items;
  const int32_t kv_head = item / p.value_items, i = item % p.value_items * kVec;
  float value[kVec];
  load_floats<T, kVec>(
      static_cast<const T*>(p.v) + token * p.v_token_stride + kv_head * p.v_head_stride + i, value);
  store_floats<KV, kVec>(cache + key_of_slot(p, slot, kv_head) + p.value_offset + i, value);
}

}  // namespace octavo::cuda
