// e^y for y <= 0, to about an ulp, and 0 below the smallest normal number. Not libm's, so that
// every machine draws the same token, and so that the compiler makes vectors of loops over it.
#pragma once

#include <bit>
#include <cstdint>

namespace octavo {

// `value` where `kept`, else 0. A mask, and no branch, so that loops of it become vectors.
inline float keep_if(bool kept, float value) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) & -static_cast<uint32_t>(kept));
}

inline float exp_nonpositive(float y) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float clamped = keep_if(y > -87.0f, y);
  const float shifted = clamped * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.98756915e-4f;
  p = p * r + 1.39819995e-3f;
  p = p * r + 8.33345190e-3f;
  p = p * r + 4.16657959e-2f;
  p = p * r + 1.66666655e-1f;
  p = p * r + 5.00000012e-1f;
  p = p * r * r + r + 1.0f;
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) + 127u) << 23;
  return keep_if(y > -87.0f, p * std::bit_cast<float>(exponent));
}

}  // namespace octavo
