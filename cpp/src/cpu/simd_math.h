// The exponential and the activations of a vector. Part of kernels.inc, as simd.h. A lane's bits do
// not depend on the other lanes.
#if !defined(OCTAVO_ISA_NAMESPACE)
#error "simd_math.h is part of kernels.inc"
#endif

namespace octavo::OCTAVO_ISA_NAMESPACE {

// p * 2^n in two exact steps, so that subnormal results round once.
OCTAVO_INLINE Vec scale_by_power(Vec p, IntVec n) {
  const IntVec half = n >> 1;
  const Vec first = bits_as<Vec>((half + 127) << 23);
  const Vec second = bits_as<Vec>((n - half + 127) << 23);
  return p * first * second;
}

// e^r for |r| <= log(2) / 2, to about an ulp.
OCTAVO_INLINE Vec exp_reduced(Vec r) {
  Vec p = broadcast(1.98756915e-4f);
  p = fma(p, r, broadcast(1.39819995e-3f));
  p = fma(p, r, broadcast(8.33345190e-3f));
  p = fma(p, r, broadcast(4.16657959e-2f));
  p = fma(p, r, broadcast(1.66666655e-1f));
  p = fma(p, r, broadcast(5.00000012e-1f));
  return fma(p, r * r, r) + broadcast(1.0f);
}

// e^(x + rest), |rest| being small, to about an ulp over the whole range; infinity above it, 0
// below, NaN for NaN.
OCTAVO_INLINE Vec exp(Vec x, Vec rest) {
  const Vec low = broadcast(-104.0f), high = broadcast(89.0f);
  Vec clamped = select(x > low, x, low);
  clamped = select(clamped < high, clamped, high);
  const Vec round = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec shifted = fma(clamped, broadcast(1.44269504f), round);
  const Vec n = shifted - round;
  Vec r = fma(n, broadcast(-0.693359375f), clamped);  // log 2 in two parts
  r = fma(n, broadcast(2.12194440e-4f), r) + rest;
  const Vec p = exp_reduced(r);
  const IntVec power = bits_as<IntVec>(shifted) - bits_as<IntVec>(round);
  return select(x == x, scale_by_power(p, power), x);
}
OCTAVO_INLINE Vec exp(Vec x) { return exp(x, Vec{}); }

// e^x for x <= 0, as exp, but 0 below the smallest normal number.
OCTAVO_INLINE Vec exp_nonpositive(Vec x) {
  const Vec low = broadcast(-87.0f), round = broadcast(12582912.0f);
  const Vec clamped = select(low > x, low, x);  // NaN stays NaN
  const Vec shifted = fma(clamped, broadcast(1.44269504f), round);
  const Vec n = shifted - round;
  Vec r = fma(n, broadcast(-0.693359375f), clamped);
  r = fma(n, broadcast(2.12194440e-4f), r);
  const Vec p = exp_reduced(r);
  // NaN makes an odd power of two here, and p * it is NaN.
  const Vec power = bits_as<Vec>((bits_as<IntVec>(shifted) - bits_as<IntVec>(round) + 127) << 23);
  return select(x <= low, Vec{}, p * power);
}

OCTAVO_INLINE Vec silu(Vec x) { return x / (broadcast(1.0f) + exp(-x)); }

// x / (1 + e^(-2u)) is 0.5 * x * (1 + tanh(u)) without its cancellation.
OCTAVO_INLINE Vec gelu_tanh(Vec x) {
  const Vec cubic = fma(x * x * broadcast(0.044715f), x, x);
  return x / (broadcast(1.0f) + exp(cubic * broadcast(-1.5957691216057308f)));
}

// x * Phi(x), with Phi(x) = erfc(-x / sqrt(2)) / 2, so that nothing cancels on the left, where
// erfc(t) = e^(-t^2) * g(t), t >= 0: g is (1 + a polynomial in (t - 2) / (t + 2)) / (1 + 2t), of
// two ulps, and t^2 = x^2 / 2 is computed in two parts, of which the first is exact.
OCTAVO_INLINE Vec gelu(Vec x) {
  const Vec one = broadcast(1.0f), limit = broadcast(15.0f);  // erfc is 0 from there on
  Vec size = select(x < Vec{}, -x, x);
  size = select(size < limit, size, limit);
  const Vec upper = bits_as<Vec>(bits_as<UintVec>(size) & 0xfffff000u);
  const Vec gauss =
      exp(upper * upper * broadcast(-0.5f), (size - upper) * (size + upper) * broadcast(-0.5f));
  const Vec t = size * broadcast(0.70710678f);
  const Vec q = (t - broadcast(2.0f)) / (t + broadcast(2.0f));
  Vec p = broadcast(-4.184051941e-04f);
  p = fma(p, q, broadcast(-1.251950394e-03f));
  p = fma(p, q, broadcast(1.330772415e-03f));
  p = fma(p, q, broadcast(8.656037040e-03f));
  p = fma(p, q, broadcast(-8.065034635e-03f));
  p = fma(p, q, broadcast(-5.421274155e-02f));
  p = fma(p, q, broadcast(1.640558988e-01f));
  p = fma(p, q, broadcast(-1.660304815e-01f));
  p = fma(p, q, broadcast(-9.276399761e-02f));
  p = fma(p, q, broadcast(2.769783735e-01f));
  const Vec erfc = gauss * ((p + one) / (one + t + t));
  return x * broadcast(0.5f) * select(x < Vec{}, erfc, broadcast(2.0f) - erfc);
}

OCTAVO_INLINE Vec activate(Activation activation, Vec x) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return select(x < Vec{}, Vec{}, x);
    case Activation::kSilu: return silu(x);
    case Activation::kGelu: return gelu(x);
    case Activation::kGeluTanh: return gelu_tanh(x);
  }
  return x;
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
