// Rows of x as bfloat16, for the kernels that multiply it by bfloat16 weights. Part of kernels.inc,
// as simd.h.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "rounded_rows.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

// kLanes elements, rounded to nearest, ties to even; NaN stays NaN.
OCTAVO_INLINE void store_rounded(Vec values, uint8_t* out) {
#if defined(OCTAVO_ISA_AVX512_BF16)
  const auto half = _mm512_cvtneps_pbh(values);
#else
  const UintVec bits = bits_as<UintVec>(values);
  const UintVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const UintVec quiet = (bits >> 16) | 0x40u;
  const UintVec is_nan = bits_as<UintVec>((bits & 0x7fffffffu) > 0x7f800000u);
  const auto half = __builtin_convertvector((is_nan & quiet) | (~is_nan & rounded), HalfVec);
#endif
  __builtin_memcpy(out, &half, sizeof half);
}

// x padded with 0 to a multiple of 32.
[[maybe_unused]] static void round_row(const float* x, int64_t in, void* out) {
  auto* target = static_cast<uint8_t*>(out);
  const int64_t padded = bfloat16_row_bytes(in) / 2;
  int64_t i = 0;
  for (; i + kLanes <= in; i += kLanes) store_rounded(load(x + i), target + 2 * i);
  for (; i < padded; i += kLanes) {
    store_rounded(i < in ? load_n(x + i, in - i) : Vec{}, target + 2 * i);
  }
}

// Emitted here: an inline function of a shared header may not be.
[[maybe_unused]] static int64_t rounded_row_bytes(int64_t in) { return bfloat16_row_bytes(in); }

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
