// A float32 vector of the instruction set that this file is compiled for: `Vec` of kLanes, with
// loads from every element type. Included only by kernels.inc, inside a namespace for each
// instruction set; nothing here may be seen, or emitted as an inline function, outside of it.
// clang-format off
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "simd.h is part of kernels.inc"
#endif
// clang-format on

#define OCTAVO_INLINE inline __attribute__((always_inline))

namespace octavo::OCTAVO_ISA_NAMESPACE {

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

#if defined(OCTAVO_ISA_AVX512)
inline constexpr int kLanes = 16;
#elif defined(OCTAVO_ISA_AVX2)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef int32_t IntVec __attribute__((vector_size(kLanes * 4)));
typedef uint32_t UintVec __attribute__((vector_size(kLanes * 4)));
typedef uint16_t HalfVec __attribute__((vector_size(kLanes * 2)));

template <class To, class From>
OCTAVO_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

OCTAVO_INLINE Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
OCTAVO_INLINE void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }

OCTAVO_INLINE Vec broadcast(float x) { return x - Vec{}; }

// Elements of 16 bits in the upper halves of 32.
OCTAVO_INLINE UintVec load_upper_halves(const void* p) {
  HalfVec half;
  __builtin_memcpy(&half, p, sizeof half);
#if defined(OCTAVO_ISA_GENERIC) && defined(__SSE2__)
  // Compilers make four scalar conversions of the line below.
  const __m128i bits = _mm_cvtsi64_si128(bits_as<int64_t>(half));
  return bits_as<UintVec>(_mm_unpacklo_epi16(_mm_setzero_si128(), bits));
#else
  return __builtin_convertvector(half, UintVec) << 16;
#endif
}

OCTAVO_INLINE Vec load(const BFloat16* p) { return bits_as<Vec>(load_upper_halves(p)); }

OCTAVO_INLINE Vec load(const Float16* p) {
#if defined(OCTAVO_ISA_AVX512)
  __m256i half;
  __builtin_memcpy(&half, p, sizeof half);
  return _mm512_maskz_cvtph_ps(0xffff, half);
#elif defined(OCTAVO_ISA_AVX2)
  __m128i half;
  __builtin_memcpy(&half, p, sizeof half);
  return _mm256_cvtph_ps(half);
#elif defined(OCTAVO_ISA_NEON)
  float16x4_t half;
  __builtin_memcpy(&half, p, sizeof half);
  return bits_as<Vec>(vcvt_f32_f16(half));
#else
  // As float16_to_float of tensor/dtype.cc.
  const UintVec shifted = load_upper_halves(p);
  const UintVec sign = shifted & 0x80000000u;
  const UintVec doubled = shifted + shifted;
  const Vec normal = bits_as<Vec>((doubled >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
  const Vec subnormal = bits_as<Vec>((doubled >> 17) | (126u << 23)) - 0.5f;
  const UintVec is_subnormal = bits_as<UintVec>(doubled < (1u << 27));
  return bits_as<Vec>(sign | (is_subnormal & bits_as<UintVec>(subnormal)) |
                      (~is_subnormal & bits_as<UintVec>(normal)));
#endif
}

// Vector `vec` of integers of 8 bits.
template <class Byte>
OCTAVO_INLINE Vec load_small(const uint8_t* p, int vec) {
  typedef Byte Bytes __attribute__((vector_size(kLanes)));
  Bytes bytes;
  __builtin_memcpy(&bytes, p + vec * kLanes, sizeof bytes);
  return __builtin_convertvector(__builtin_convertvector(bytes, IntVec), Vec);
}

// The first `count` elements, 0 < count < kLanes; the other lanes are 0.
template <class E>
OCTAVO_INLINE Vec load_partial(const E* p, int64_t count) {
  E lanes[kLanes] = {};
  __builtin_memcpy(lanes, p, static_cast<size_t>(count) * sizeof(E));
  return load(lanes);
}
OCTAVO_INLINE void store_partial(float* p, int64_t count, Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  __builtin_memcpy(p, lanes, static_cast<size_t>(count) * sizeof(float));
}

OCTAVO_INLINE Vec load_n(const float* p, int64_t count) {
  return count >= kLanes ? load(p) : load_partial(p, count);
}
OCTAVO_INLINE void store_n(float* p, int64_t count, Vec v) {
  count >= kLanes ? store(p, v) : store_partial(p, count, v);
}

// a * b + c; rounded once where the instruction set can, twice in the generic one.
OCTAVO_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if defined(OCTAVO_ISA_AVX512)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(OCTAVO_ISA_AVX2)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(OCTAVO_ISA_NEON)
  return bits_as<Vec>(
      vfmaq_f32(bits_as<float32x4_t>(c), bits_as<float32x4_t>(a), bits_as<float32x4_t>(b)));
#else
  return a * b + c;
#endif
}

// Lanes of `mask` are all ones or all zeros.
OCTAVO_INLINE Vec select(IntVec mask, Vec yes, Vec no) { return mask ? yes : no; }
OCTAVO_INLINE Vec max(Vec a, Vec b) { return select(a > b, a, b); }

// 0, 1, 2, ...
OCTAVO_INLINE IntVec lane_index() {
#if defined(OCTAVO_ISA_AVX512)
  return IntVec{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif defined(OCTAVO_ISA_AVX2)
  return IntVec{0, 1, 2, 3, 4, 5, 6, 7};
#else
  return IntVec{0, 1, 2, 3};
#endif
}

// Folds the lanes: halves onto each other, in a fixed order. The result is in lane 0.
template <class V, class F>
OCTAVO_INLINE V fold_lanes(V v, const F& f) {
#pragma GCC unroll 4
  for (int width = kLanes / 2; width > 0; width /= 2) {
    v = f(v, __builtin_shuffle(v, lane_index() ^ width));
  }
  return v;
}
OCTAVO_INLINE float sum_lanes(Vec v) {
  return fold_lanes(v, [](Vec a, Vec b) { return a + b; })[0];
}
OCTAVO_INLINE int32_t sum_lanes(IntVec v) {
  return fold_lanes(v, [](IntVec a, IntVec b) { return a + b; })[0];
}
OCTAVO_INLINE float max_lanes(Vec v) {
  return fold_lanes(v, [](Vec a, Vec b) { return max(a, b); })[0];
}
OCTAVO_INLINE int32_t max_lanes(IntVec v) {
  return fold_lanes(v, [](IntVec a, IntVec b) { return a > b ? a : b; })[0];
}

OCTAVO_INLINE uint32_t float_bits(float x) { return bits_as<uint32_t>(x); }

// One element, rounded to nearest, ties to even. Copies of tensor/dtype: its inline functions must
// not be emitted from here.
OCTAVO_INLINE void store_element(float* p, float x) { *p = x; }
OCTAVO_INLINE void store_element(BFloat16* p, float x) {
  const uint32_t bits = float_bits(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet = (bits >> 16) | 0x40u;
  p->bits = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}
OCTAVO_INLINE void store_element(Float16* p, float x) {
  const uint32_t bits = float_bits(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t subnormal = float_bits(bits_as<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
  uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x47800000u ? 0x7c00u : half;
  half = magnitude > 0x7f800000u ? 0x7e00u : half;
  p->bits = static_cast<uint16_t>(sign | half);
}

OCTAVO_INLINE float load_element(const float* p) { return *p; }
OCTAVO_INLINE float load_element(const BFloat16* p) {
  return bits_as<float>(static_cast<uint32_t>(p->bits) << 16);
}
OCTAVO_INLINE float load_element(const Float16* p) {
  Float16 lanes[kLanes] = {*p};
  return load(lanes)[0];
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
