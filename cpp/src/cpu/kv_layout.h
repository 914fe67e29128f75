// How elements lie in a KV cache (kernel_table.h), for its kernels. Part of kernels.inc, as simd.h.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "kv_layout.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

struct Int8 {
  int8_t number;
};

template <class E>
inline constexpr DType kDType = DType::kFloat32;
template <>
inline constexpr DType kDType<Float16> = DType::kFloat16;
template <>
inline constexpr DType kDType<BFloat16> = DType::kBFloat16;
template <>
inline constexpr DType kDType<Int8> = DType::kInt8;
template <class E>
inline constexpr bool kPaired = kv_paired(kDType<E>);

// Where element `d` of a key at `place` is, in elements from the head's keys.
template <class E>
OCTAVO_INLINE int64_t key_place(int64_t d, int64_t place, int64_t block_size) {
  return kPaired<E> ? (d / 2 * block_size + place) * 2 + d % 2 : d * block_size + place;
}
// Where element `d` of a value at `place` is, in elements from the head's values.
template <class E>
OCTAVO_INLINE int64_t value_place(int64_t d, int64_t place, int64_t head_dim) {
  return kPaired<E> ? (place / 2 * head_dim + d) * 2 + place % 2 : place * head_dim + d;
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
