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

template <class E>
void rope_store(const RopeStoreTask& task) {
  for (int64_t head = 0; task.cos_sin != nullptr && head < task.heads; ++head) {
    rotate(task.q + head * task.q_head_stride, task.cos_sin, task.rotary_dim);
  }
  E* keys = static_cast<E*>(task.block) + task.place;
  E* values = static_cast<E*>(task.block) + task.kv_heads * task.head_dim * task.block_size;
  for (int64_t head = 0; head < task.kv_heads; ++head) {
    float* __restrict k = task.k + head * task.k_head_stride;
    const float* __restrict v = task.v + head * task.v_head_stride;
    if (task.cos_sin != nullptr) rotate(k, task.cos_sin, task.rotary_dim);
    E* __restrict key = keys + head * task.head_dim * task.block_size;
    E* __restrict value = values + (head * task.block_size + task.place) * task.head_dim;
    for (int64_t d = 0; d < task.head_dim; ++d) store_element(key + d * task.block_size, k[d]);
    for (int64_t d = 0; d < task.head_dim; ++d) store_element(value + d, v[d]);
  }
}

// Input features that are turned at a time, so that they stay in the first cache.
inline constexpr int64_t kPackBlock = 16;

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
      for (int64_t r = 0; r < kPanelWidth; ++r) {
        store_element(out + k * kPanelWidth + r, turned[k - begin][r]);
      }
    }
  }
}

template <class E>
void read_row(const void* weight, int64_t row, int64_t in, bool accumulate, float* out) {
  const E* column =
      static_cast<const E*>(weight) + row / kPanelWidth * in * kPanelWidth + row % kPanelWidth;
  for (int64_t k = 0; k < in; ++k) {
    const float value = load_element(column + k * kPanelWidth);
    out[k] = accumulate ? out[k] + value : value;
  }
}

template <class E>
void convert(const float* __restrict source, int64_t count, void* out) {
  E* __restrict elements = static_cast<E*>(out);
  for (int64_t i = 0; i < count; ++i) store_element(elements + i, source[i]);
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
