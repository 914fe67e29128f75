// The scalar steps of sampling on the device, to the bit those of backend/exp_nonpositive.h,
// backend/sample_row.cc and backend/row_logprobs.cc. No product is contracted into a sum.
#pragma once

#include <cstdint>

namespace octavo::cuda {

inline constexpr int32_t kNoId = -1;
inline constexpr int32_t kLastId = 0x7fffffff;
inline constexpr uint32_t kInfinityBits = 0x7f800000u;

__device__ __forceinline__ float infinity() { return __uint_as_float(kInfinityBits); }

// e^y for y <= 0.
__device__ __forceinline__ float exp_nonpositive(float y) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  if (!(y > -87.0f)) return 0.0f;
  const float shifted = __fadd_rn(__fmul_rn(y, 1.44269504f), kRound);
  const float n = __fsub_rn(shifted, kRound);
  const float r = __fadd_rn(__fsub_rn(y, __fmul_rn(n, 0.693359375f)), __fmul_rn(n, 2.12194440e-4f));
  float p = 1.98756915e-4f;
  p = __fadd_rn(__fmul_rn(p, r), 1.39819995e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 8.33345190e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 4.16657959e-2f);
  p = __fadd_rn(__fmul_rn(p, r), 1.66666655e-1f);
  p = __fadd_rn(__fmul_rn(p, r), 5.00000012e-1f);
  p = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(p, r), r), r), 1.0f);
  const uint32_t exponent = (__float_as_uint(shifted) + 127u) << 23;
  return __fmul_rn(p, __uint_as_float(exponent));
}

// Integers that order as floats do; both zeros have the same. No NaN: its key is kNaNKey, above all
// others, and no float's is 0.
inline constexpr uint32_t kNaNKey = 0xffffffffu;
inline constexpr uint32_t kLowestKey = 0x007fffffu;  // of -infinity
__device__ __forceinline__ uint32_t order_key(float value) {
  if (value != value) return kNaNKey;
  const uint32_t bits = __float_as_uint(value);
  if (bits == 0x80000000u) return 0x80000000u;
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float float_of_key(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

// Orders by value, then by the lower id.
__device__ __forceinline__ uint64_t ranked(uint32_t key, int32_t id) {
  return uint64_t{key} << 32 | (0xffffffffu - static_cast<uint32_t>(id));
}
__device__ __forceinline__ uint32_t key_of(uint64_t ranked) {
  return static_cast<uint32_t>(ranked >> 32);
}
__device__ __forceinline__ int32_t id_of(uint64_t ranked) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(ranked));
}

// Logits as weights relative to the largest: what min_p, top_k and top_p left of them. Nothing is
// written back: every pass over the row makes its weights anew.
struct Filter {
  float max;
  float temperature;
  float threshold;  // of top_k
  float min_p;
  uint32_t cut_bits = 0;     // of top_p: the least weight that is kept,
  int32_t cut_id = kLastId;  // and of those that are equal to it the last id

  // Before top_p.
  __device__ __forceinline__ float uncut(float logit) const {
    if (max == infinity()) return logit == max ? 1.0f : 0.0f;
    const float difference = __fsub_rn(logit, max);
    const float weight =
        exp_nonpositive(temperature == 1.0f ? difference : __fdiv_rn(difference, temperature));
    return logit >= threshold && weight >= min_p ? weight : 0.0f;
  }
  __device__ __forceinline__ float weight(float logit, int32_t id) const {
    const float weight = uncut(logit);
    const uint32_t bits = __float_as_uint(weight);
    return bits < cut_bits || (bits == cut_bits && id > cut_id) ? 0.0f : weight;
  }
};

// Of a positive float: value = mantissa * 2^(exponent - 150).
__device__ __forceinline__ uint32_t mantissa_of(uint32_t bits) {
  return (bits & 0x7fffffu) | 0x800000u;
}
// 2^power, of a normal double.
__device__ __forceinline__ double power_of_two(int power) {
  return __longlong_as_double(static_cast<int64_t>(power + 1023) << 52);
}

// What a run of additions does to a double: x becomes fl(...fl(fl(x + t0) + t1)...), where all
// results lie in one binade. x is then an integer m of units in its last place; each t adds a whole
// number of them, rounded to nearest, and only a tie asks whether m is even. So the run is known
// for any x: by how much an even m and an odd m grow. Runs compose, which is how a long sum in a
// prescribed order is computed by many threads.
struct SumRun {
  int64_t even = 0, odd = 0;  // the growth of m

  // Adds the float of these bits; m's unit is 2^(binade - 52). The float is less than 2^(binade+1).
  __device__ __forceinline__ void add(uint32_t bits, int binade) {
    if (bits == 0) return;
    const int shift = static_cast<int>(bits >> 23) - 98 - binade;
    const uint32_t mantissa = mantissa_of(bits);
    if (shift >= 0) {
      const int64_t whole = static_cast<int64_t>(mantissa) << shift;
      even += whole;
      odd += whole;
      return;
    }
    if (shift < -24) return;  // less than half a unit
    const uint32_t whole = mantissa >> -shift;
    const uint32_t half = 1u << (-shift - 1);
    const uint32_t rest = mantissa & (2 * half - 1);
    const uint32_t up = rest > half ? 1u : 0u, tie = rest == half ? 1u : 0u;
    even += whole + (up | (tie & (whole + static_cast<uint32_t>(even))));
    odd += whole + (up | (tie & (whole + 1u + static_cast<uint32_t>(odd))));
  }
  __device__ __forceinline__ int64_t growth(int64_t m) const { return (m & 1) != 0 ? odd : even; }
  __device__ __forceinline__ SumRun then(const SumRun& next) const {
    return {even + next.growth(even), odd + next.growth(1 + odd)};
  }
};

inline constexpr int64_t kImplicitBit = int64_t{1} << 52;

// The exponent field of a double that is not negative.
__device__ __forceinline__ int exponent_field(double value) {
  return static_cast<int>(__double_as_longlong(value) >> 52);
}
// The run's result, or a negative number where the run was not made for x's binade or leaves it.
__device__ __forceinline__ double apply_run(const SumRun& run, int run_exponent, double x) {
  const int64_t bits = __double_as_longlong(x);
  if (static_cast<int>(bits >> 52) != run_exponent) return -1.0;
  const int64_t m = (bits & (kImplicitBit - 1)) | kImplicitBit;
  const int64_t sum = m + run.growth(m);
  if (sum >= 2 * kImplicitBit) return -1.0;
  return __longlong_as_double((static_cast<int64_t>(run_exponent) << 52) |
                              (sum & (kImplicitBit - 1)));
}

}  // namespace octavo::cuda
