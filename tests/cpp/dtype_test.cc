#include "tensor/dtype.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "octavo/error.h"

namespace octavo {
namespace {

// The value of an IEEE 754 half from its fields.
float half_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) {
    return mantissa == 0 ? sign * std::numeric_limits<float>::infinity()
                         : std::numeric_limits<float>::quiet_NaN();
  }
  const int whole = exponent == 0 ? mantissa : mantissa + 1024;
  return std::ldexp(sign * static_cast<float>(whole), (exponent == 0 ? 1 : exponent) - 25);
}

uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }

TEST_CASE("every half converts to its value and back") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = float16_to_float(half);
    if (std::isnan(half_value(half))) {
      REQUIRE(std::isnan(value));
      REQUIRE(std::isnan(float16_to_float(float_to_float16(value))));
    } else {
      REQUIRE(bits_of(value) == bits_of(half_value(half)));
      REQUIRE(float_to_float16(value) == half);
    }
  }
}

TEST_CASE("float to half rounds to nearest, ties to even") {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {  // positive and finite, but for the largest
    const auto low = static_cast<uint16_t>(bits), high = static_cast<uint16_t>(bits + 1);
    const float below = float16_to_float(low), above = float16_to_float(high);
    const float middle = below + (above - below) / 2;  // exact
    REQUIRE(float_to_float16(middle) == (bits % 2 == 0 ? low : high));
    REQUIRE(float_to_float16(std::nextafter(middle, below)) == low);
    REQUIRE(float_to_float16(std::nextafter(middle, above)) == high);
    REQUIRE(float_to_float16(-std::nextafter(middle, above)) == (high | 0x8000));
  }
  CHECK(float_to_float16(65504.0f) == 0x7bff);
  CHECK(float_to_float16(65519.9f) == 0x7bff);
  CHECK(float_to_float16(65520.0f) == 0x7c00);
  CHECK(float_to_float16(-1e30f) == 0xfc00);
  CHECK(float_to_float16(1e-30f) == 0);
}

TEST_CASE("every bfloat16 converts to its value and back") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = bfloat16_to_float(half);
    REQUIRE(bits_of(value) == bits << 16);
    if (std::isnan(value)) {
      REQUIRE(std::isnan(bfloat16_to_float(float_to_bfloat16(value))));
    } else {
      REQUIRE(float_to_bfloat16(value) == half);
    }
  }
}

TEST_CASE("float to bfloat16 rounds to nearest, ties to even") {
  CHECK(float_to_bfloat16(std::bit_cast<float>(0x3f808000u)) == 0x3f80);  // tie, even below
  CHECK(float_to_bfloat16(std::bit_cast<float>(0x3f818000u)) == 0x3f82);  // tie, even above
  CHECK(float_to_bfloat16(std::bit_cast<float>(0x3f808001u)) == 0x3f81);
  CHECK(float_to_bfloat16(std::bit_cast<float>(0x3f807fffu)) == 0x3f80);
  CHECK(float_to_bfloat16(std::numeric_limits<float>::max()) == 0x7f80);
}

TEST_CASE("arrays convert as their elements do") {
  const std::vector<float> values = {0.0f, -1.5f, 3.1415927f, 65504.0f, 1e-5f};
  for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    CAPTURE(dtype_name(dtype));
    std::vector<uint32_t> stored(values.size());
    std::vector<float> back(values.size());
    convert_from_float(values.data(), values.size(), dtype, stored.data());
    convert_to_float(dtype, stored.data(), values.size(), back.data());
    for (size_t i = 0; i < values.size(); ++i) {
      float expected = values[i];
      if (dtype == DType::kFloat16) expected = float16_to_float(float_to_float16(values[i]));
      if (dtype == DType::kBFloat16) expected = bfloat16_to_float(float_to_bfloat16(values[i]));
      CHECK(back[i] == expected);
    }
  }
  CHECK_THROWS_AS(convert_to_float(DType::kInt32, values.data(), 1, nullptr), InternalError);
}

TEST_CASE("dtypes have names") {
  CHECK(floating_dtype_from_name("float32", "dtype") == DType::kFloat32);
  CHECK(floating_dtype_from_name("half", "dtype") == DType::kFloat16);
  CHECK(floating_dtype_from_name("bfloat16", "dtype") == DType::kBFloat16);
  CHECK_THROWS_AS(floating_dtype_from_name("int32", "dtype"), InvalidArgument);
  CHECK(dtype_name(DType::kBFloat16) == "bfloat16");
}

}  // namespace
}  // namespace octavo
