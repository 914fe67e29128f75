#include "tensor/dtype.h"

#include <cstring>
#include <optional>

#include "base/check.h"

namespace octavo {

std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return "float32";
    case DType::kFloat16: return "float16";
    case DType::kBFloat16: return "bfloat16";
    case DType::kInt8: return "int8";
    case DType::kInt32: return "int32";
  }
  return "unknown";
}

namespace {

std::optional<DType> find_floating_dtype(std::string_view name) {
  if (name == "float32" || name == "float") return DType::kFloat32;
  if (name == "float16" || name == "half") return DType::kFloat16;
  if (name == "bfloat16") return DType::kBFloat16;
  return std::nullopt;
}

}  // namespace

DType floating_dtype_from_name(std::string_view name, std::string_view parameter) {
  if (const auto dtype = find_floating_dtype(name)) return *dtype;
  throw InvalidArgument(
      str_cat(parameter, ": '", name, "' is unknown; expected auto, float32, bfloat16 or float16"));
}

DType cache_dtype_from_name(std::string_view name, std::string_view parameter) {
  if (name == "int8") return DType::kInt8;
  if (const auto dtype = find_floating_dtype(name)) return *dtype;
  throw InvalidArgument(str_cat(parameter, ": '", name,
                                "' is unknown; expected auto, float32, bfloat16, float16 or int8"));
}

// The arithmetic of both conversions is that of IEEE 754 binary16: a float32 of the same value is
// built by moving exponent and mantissa and correcting by one multiplication or addition.
float float16_to_float(uint16_t bits) {
  const uint32_t shifted = static_cast<uint32_t>(bits) << 16;
  const uint32_t sign = shifted & 0x80000000u;
  const uint32_t doubled = shifted + shifted;
  // Normal numbers, infinity and NaN: rebias the exponent by a multiplication with 2^-112.
  const float normal = std::bit_cast<float>((doubled >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
  // Subnormal numbers: place the mantissa below 0.5 and subtract.
  const float subnormal = std::bit_cast<float>((doubled >> 17) | (126u << 23)) - 0.5f;
  const float magnitude = doubled < (1u << 27) ? subnormal : normal;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

uint16_t float_to_float16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {  // subnormal: let the addition round the mantissa
    const float rounded = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(rounded) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23);
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

void convert_to_float(DType dtype, const void* source, size_t count, float* out) {
  const auto* half = static_cast<const uint16_t*>(source);
  switch (dtype) {
    case DType::kFloat32:
      if (count != 0) std::memcpy(out, source, count * sizeof(float));
      return;
    case DType::kFloat16:
      for (size_t i = 0; i < count; ++i) out[i] = float16_to_float(half[i]);
      return;
    case DType::kBFloat16:
      for (size_t i = 0; i < count; ++i) out[i] = bfloat16_to_float(half[i]);
      return;
    case DType::kInt8:
    case DType::kInt32: break;
  }
  OCTAVO_CHECK(false, "convert_to_float of ", dtype_name(dtype));
}

void convert_from_float(const float* source, size_t count, DType dtype, void* out) {
  auto* half = static_cast<uint16_t*>(out);
  switch (dtype) {
    case DType::kFloat32:
      if (count != 0) std::memcpy(out, source, count * sizeof(float));
      return;
    case DType::kFloat16:
      for (size_t i = 0; i < count; ++i) half[i] = float_to_float16(source[i]);
      return;
    case DType::kBFloat16:
      for (size_t i = 0; i < count; ++i) half[i] = float_to_bfloat16(source[i]);
      return;
    case DType::kInt8:
    case DType::kInt32: break;
  }
  OCTAVO_CHECK(false, "convert_from_float to ", dtype_name(dtype));
}

}  // namespace octavo
