// Pairs of bfloat16, and the instruction set's products of them, whose sums are float32. Part of
// kernels.inc, as simd.h.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "bfloat16_pairs.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

#if defined(OCTAVO_ISA_AVX512_BF16)
typedef __m512bh PairVec;
OCTAVO_INLINE Vec dot_pairs(Vec sums, PairVec a, PairVec b) { return _mm512_dpbf16_ps(sums, a, b); }
#else
typedef bfloat16x8_t PairVec;
OCTAVO_INLINE Vec dot_pairs(Vec sums, PairVec a, PairVec b) {
  return bits_as<Vec>(vbfdotq_f32(bits_as<float32x4_t>(sums), a, b));
}
#endif

OCTAVO_INLINE PairVec load_pairs(const void* p) {
  PairVec pairs;
  __builtin_memcpy(&pairs, p, sizeof pairs);
  return pairs;
}
// The pair at `p` in every lane.
OCTAVO_INLINE PairVec broadcast_pair(const void* p) {
  int32_t bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  return bits_as<PairVec>(IntVec{} + bits);
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
