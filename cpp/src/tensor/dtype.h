// The element types of tensors in memory, and their conversion to float32. Weight encodings of
// checkpoint files are in quant/scheme.h.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace octavo {

// int8 is of KV caches alone: integers with a scale for each vector of a head.
enum class DType : uint8_t { kFloat32, kFloat16, kBFloat16, kInt8, kInt32 };

constexpr bool is_floating(DType dtype) { return dtype < DType::kInt8; }

constexpr size_t dtype_size(DType dtype) {
  return dtype == DType::kInt8 ? 1 : dtype == DType::kFloat32 || dtype == DType::kInt32 ? 4 : 2;
}

std::string_view dtype_name(DType dtype);  // "float32", "float16", "bfloat16", "int8", "int32"
// Throws InvalidArgument that begins with `parameter`.
DType floating_dtype_from_name(std::string_view name, std::string_view parameter);
DType cache_dtype_from_name(std::string_view name, std::string_view parameter);  // and int8

inline float bfloat16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Rounds to nearest, ties to even; NaN stays NaN.
inline uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float float16_to_float(uint16_t bits);
uint16_t float_to_float16(float value);  // to nearest, ties to even; overflow is infinity

// Converts `count` elements of `dtype` (a floating one) to or from float32.
void convert_to_float(DType dtype, const void* source, size_t count, float* out);
void convert_from_float(const float* source, size_t count, DType dtype, void* out);

}  // namespace octavo
