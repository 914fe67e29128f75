// Arithmetic on numbers that come from files: a result that does not fit is no value, never a
// wrapped one. Stateless.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace octavo {

inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t result = 0;
  if (__builtin_add_overflow(a, b, &result)) return std::nullopt;
  return result;
}

inline std::optional<uint64_t> checked_multiply(uint64_t a, uint64_t b) {
  uint64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) return std::nullopt;
  return result;
}

// The number of elements of `shape`, where no extent is negative and no product of leading extents
// exceeds int64_t: what later code multiplies without a check.
inline std::optional<uint64_t> checked_elements(std::span<const int64_t> shape) {
  int64_t elements = 1;
  for (int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(elements, extent, &elements)) return std::nullopt;
  }
  return static_cast<uint64_t>(elements);
}

// `value` rounded up to a multiple of `alignment`, a power of two.
inline std::optional<uint64_t> checked_align(uint64_t value, uint64_t alignment) {
  const std::optional<uint64_t> raised = checked_add(value, alignment - 1);
  if (!raised) return std::nullopt;
  return *raised & ~(alignment - 1);
}

}  // namespace octavo
