// The random numbers of dummy weights: a hash of a seed and a place, so that any element can be had
// alone. Stateless, callable from any thread; compiled for the host and for CUDA devices, which
// must agree bit for bit.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define OCTAVO_NOISE_CALL __host__ __device__ __forceinline__
#else
#define OCTAVO_NOISE_CALL inline
#endif

namespace octavo {

// The sum of four uniform 16-bit numbers, centred and scaled: close to normal with a deviation of
// 0.02, and cheap. Every step but the product is exact, so no contraction can change the result.
OCTAVO_NOISE_CALL float noise_value(uint64_t seed, uint64_t index) {
  constexpr float kScale = 0.02f * 1.7320508f / 65536.0f;  // the sum's deviation is 65536 / sqrt(3)
  uint64_t bits = seed + index * 0x9e3779b97f4a7c15u;      // the finaliser of splitmix64
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
  bits ^= bits >> 31;
  const auto low = static_cast<uint32_t>(bits), high = static_cast<uint32_t>(bits >> 32);
  const uint32_t sum = (low & 0xffffu) + (low >> 16) + (high & 0xffffu) + (high >> 16);
  return (static_cast<float>(sum) - 131070.0f) * kScale;
}

}  // namespace octavo
