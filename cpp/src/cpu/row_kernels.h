// Kernels of one row: norms, gates, rotation and store, packing. Part of kernels.inc, as simd.h.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "row_kernels.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

inline constexpr int kSumChains = 4;  // independent additions

// The sum over i of f(vector i), padded with 0: chains of vectors, then lanes, in a fixed order.
template <class F>
OCTAVO_INLINE float sum_row(const float* x, int64_t count, const F& f) {
  Vec chains[kSumChains] = {};
  int64_t i = 0;
  for (; i + kSumChains * kLanes <= count; i += kSumChains * kLanes) {
    for (int c = 0; c < kSumChains; ++c) chains[c] = f(load(x + i + c * kLanes), chains[c]);
  }
  for (; i + kLanes <= count; i += kLanes) chains[0] = f(load(x + i), chains[0]);
  float sum = sum_lanes((chains[0] + chains[1]) + (chains[2] + chains[3]));
  if (i == count) return sum;
  // The tail by lanes of its own: padding would not be 0 after f.
  Vec tail = f(load_partial(x + i, count - i), Vec{});
  tail = select(lane_index() < static_cast<int32_t>(count - i), tail, Vec{});
  return sum + sum_lanes(tail);
}

void rms_norm(const float* x, const float* weight, float eps, int64_t count, float* out) {
  const float sum = sum_row(x, count, [](Vec v, Vec s) { return fma(v, v, s); });
  const float mean = sum / static_cast<float>(count);
  const Vec scale = broadcast(1.0f / __builtin_sqrtf(mean + eps));
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t left = count - i;
    store_n(out + i, left, load_n(x + i, left) * scale * load_n(weight + i, left));
  }
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t count,
                float* out) {
  const float n = static_cast<float>(count);
  const float mean = sum_row(x, count, [](Vec v, Vec s) { return s + v; }) / n;
  const Vec center = broadcast(mean);
  const float variance = sum_row(x, count,
                                 [center](Vec v, Vec s) {
                                   const Vec d = v - center;
                                   return fma(d, d, s);
                                 }) /
                         n;
  const Vec scale = broadcast(1.0f / __builtin_sqrtf(variance + eps));
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t left = count - i;
    const Vec shift = bias == nullptr ? Vec{} : load_n(bias + i, left);
    const Vec normal = (load_n(x + i, left) - center) * scale;
    store_n(out + i, left, fma(normal, load_n(weight + i, left), shift));
  }
}

void gate(Activation activation, const float* gate_row, const float* up, int64_t count,
          float* out) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t left = count - i;
    store_n(out + i, left, activate(activation, load_n(gate_row + i, left)) * load_n(up + i, left));
  }
}

OCTAVO_INLINE void rotate(float* __restrict x, const float* __restrict cos_sin,
                          int64_t rotary_dim) {
  const int64_t half = rotary_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float first = x[i], second = x[i + half];
    x[i] = first * cos_sin[i] - second * cos_sin[half + i];
    x[i + half] = second * cos_sin[i] + first * cos_sin[half + i];
  }
}

// Integers of 8 bits for numbers of up to this size: what the numbers are multiplied by, and their
// scale. A NaN or an infinity makes the scale NaN.
OCTAVO_INLINE float int8_inverse(float most) { return most > 0 ? 127.0f / most : 0.0f; }
OCTAVO_INLINE float int8_scale(float most) { return most / 127.0f + most * 0.0f; }
inline constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer

// A vector of a head as integers: number d goes to out[place(d)]. Returns their scale.
template <class Place>
OCTAVO_INLINE float store_int8(const float* __restrict x, int64_t count, Int8* __restrict out,
                               const Place& place) {
  int32_t largest = 0;  // of the sizes' bits, which order as the sizes do, and NaN above all
  for (int64_t d = 0; d < count; ++d) {
    const auto size = bits_as<int32_t>(x[d]) & 0x7fffffff;
    largest = size > largest ? size : largest;
  }
  const float most = bits_as<float>(largest);
  const float inverse = int8_inverse(most);
  for (int64_t d = 0; d < count; ++d) {
    const float rounded = x[d] * inverse + kRound;
    out[place(d)].number = static_cast<int8_t>(bits_as<int32_t>(rounded));
  }
  return int8_scale(most);
}

// One head's key and value into the slot.
template <class E>
OCTAVO_INLINE void store_key_value(const RopeStoreTask& task, const float* __restrict k,
                                   const float* __restrict v, E* __restrict key,
                                   E* __restrict value) {
  const auto key_at = [&](int64_t d) { return key_place<E>(d, task.place, task.block_size); };
  const auto value_at = [&](int64_t d) { return value_place<E>(d, task.place, task.head_dim); };
  if constexpr (kDType<E> == DType::kInt8) {
    const float key_scale = store_int8(k, task.head_dim, key, key_at);
    const float value_scale = store_int8(v, task.head_dim, value, value_at);
    // They are the last elements of the head's.
    const int64_t from_end = 4 * (task.block_size - task.place);
    __builtin_memcpy(key + kv_key_elements(kDType<E>, task.head_dim, task.block_size) - from_end,
                     &key_scale, sizeof key_scale);
    __builtin_memcpy(
        value + kv_value_elements(kDType<E>, task.head_dim, task.block_size) - from_end,
        &value_scale, sizeof value_scale);
  } else {
    for (int64_t d = 0; d < task.head_dim; ++d) store_element(key + key_at(d), k[d]);
    for (int64_t d = 0; d < task.head_dim; ++d) store_element(value + value_at(d), v[d]);
  }
}

template <class E>
void rope_store(const RopeStoreTask& task) {
  for (int64_t head = 0; task.cos_sin != nullptr && head < task.heads; ++head) {
    rotate(task.q + head * task.q_head_stride, task.cos_sin, task.rotary_dim);
  }
  const int64_t key_elements = kv_key_elements(kDType<E>, task.head_dim, task.block_size);
  const int64_t value_elements = kv_value_elements(kDType<E>, task.head_dim, task.block_size);
  E* keys = static_cast<E*>(task.block);
  E* values = keys + task.kv_heads * key_elements;
  for (int64_t head = 0; head < task.kv_heads; ++head) {
    float* k = task.k + head * task.k_head_stride;
    if (task.cos_sin != nullptr) rotate(k, task.cos_sin, task.rotary_dim);
    store_key_value(task, k, task.v + head * task.v_head_stride, keys + head * key_elements,
                    values + head * value_elements);
  }
}

// Input features that are turned at a time, so that they stay in the first cache.
inline constexpr int64_t kPackBlock = 16;

// Where input feature k of a panel's first lane is, and how far the lanes are apart.
template <class E>
OCTAVO_INLINE int64_t panel_place(int64_t k) {
  if constexpr (kVecElements<E> != kLanes) return k / 2 * 2 * kPanelWidth + k % 2;
  return k * kPanelWidth;
}
template <class E>
inline constexpr int64_t kLaneStride = kVecElements<E> / kLanes;

template <class E>
void pack_panel(const float* const* rows, int64_t in, void* panel) {
  E* __restrict out = static_cast<E*>(panel);
  for (int64_t begin = 0; begin < in; begin += kPackBlock) {
    const int64_t end = begin + kPackBlock < in ? begin + kPackBlock : in;
    float turned[kPackBlock][kPanelWidth];
    for (int64_t r = 0; r < kPanelWidth; ++r) {
      for (int64_t k = begin; k < end; ++k) turned[k - begin][r] = rows[r] ? rows[r][k] : 0.0f;
    }
    for (int64_t k = begin; k < end; ++k) {
      E* __restrict column = out + panel_place<E>(k);
      for (int64_t r = 0; r < kPanelWidth; ++r) {
        store_element(column + r * kLaneStride<E>, turned[k - begin][r]);
      }
    }
  }
}

template <class E>
void read_row(const void* panel, int64_t lane, int64_t in, float* out) {
  const E* column = static_cast<const E*>(panel) + lane * kLaneStride<E>;
  for (int64_t k = 0; k < in; ++k) out[k] = load_element(column + panel_place<E>(k));
}

// x as integers of 8 bits with a scale for each block of 32.
void quantize_row(const float* x, int64_t in, void* out) {
  constexpr int kVecs = static_cast<int>(kQuantBlock) / kLanes;
  typedef int8_t Bytes __attribute__((vector_size(kLanes)));
  int8_t* q = static_cast<int8_t*>(out);
  float* scales = reinterpret_cast<float*>(q + in);
  float* sums = scales + in / kQuantBlock;
  int32_t* counts = reinterpret_cast<int32_t*>(sums + in / kQuantBlock);
  for (int64_t block = 0; block < in / kQuantBlock; ++block) {
    Vec values[kVecs];
    IntVec largest{};  // of the sizes' bits, which order as the sizes do, and NaN above all
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      values[v] = load(x + block * kQuantBlock + v * kLanes);
      const IntVec size = bits_as<IntVec>(values[v]) & 0x7fffffff;
      largest = size > largest ? size : largest;
    }
    const float most = bits_as<float>(max_lanes(largest));
    const Vec inverse = broadcast(int8_inverse(most));
    IntVec halves[2] = {};
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      const Vec rounded = fma(values[v], inverse, broadcast(kRound));
      const IntVec numbers = bits_as<IntVec>(rounded) - bits_as<int32_t>(kRound);
      const Bytes bytes = __builtin_convertvector(numbers, Bytes);
      __builtin_memcpy(q + block * kQuantBlock + v * kLanes, &bytes, sizeof bytes);
      halves[2 * v / kVecs] += numbers;
    }
    const int32_t lower = sum_lanes(halves[0]), upper = sum_lanes(halves[1]);
    counts[2 * block] = lower;
    counts[2 * block + 1] = upper;
    scales[block] = int8_scale(most);
    sums[block] = scales[block] * static_cast<float>(lower + upper);
  }
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
