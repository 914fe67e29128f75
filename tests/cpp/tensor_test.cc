#include "tensor/tensor.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "tensor/dtype.h"

namespace octavo {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST_CASE("a tensor of a shape is contiguous") {
  std::vector<float> data(24);
  const Tensor tensor(data.data(), DType::kFloat32, {2, 3, 4});
  CHECK(tensor);
  CHECK(tensor.rank() == 3);
  CHECK(tensor.size() == 24);
  CHECK(tensor.stride(0) == 12);
  CHECK(tensor.stride(1) == 4);
  CHECK(tensor.stride(2) == 1);
  CHECK(tensor.contiguous());
  CHECK(tensor.row<float>(1) == data.data() + 12);
  CHECK_FALSE(Tensor());
}

TEST_CASE("views address the elements that they name") {
  std::vector<int32_t> data(24);
  std::iota(data.begin(), data.end(), 0);
  const Tensor tensor(data.data(), DType::kInt32, {4, 6});
  const Tensor rows = tensor.rows(1, 3);
  CHECK(rows.dim(0) == 2);
  CHECK(rows.contiguous());
  CHECK(rows.row<int32_t>(1)[5] == 17);
  const Tensor columns = tensor.columns(2, 6);
  CHECK(columns.dim(1) == 4);
  CHECK_FALSE(columns.contiguous());
  CHECK(columns.row<int32_t>(3)[0] == 20);
  const Tensor heads = columns.split_last(2);
  CHECK(heads.rank() == 3);
  CHECK(heads.dim(1) == 2);
  CHECK(heads.dim(2) == 2);
  CHECK(heads.row<int32_t>(1)[heads.stride(1)] == 10);
}

TEST_CASE("views step by the size of the dtype") {
  std::vector<uint16_t> data(12);
  const Tensor tensor(data.data(), DType::kBFloat16, {3, 4});
  CHECK(tensor.rows(1, 2).data() == data.data() + 4);
  CHECK(tensor.columns(3, 4).data() == data.data() + 3);
}

TEST_CASE("a single row of a wider matrix is contiguous, several are not") {
  std::vector<float> data(12);
  const Tensor tensor(data.data(), DType::kFloat32, {3, 4});
  CHECK(tensor.rows(0, 1).columns(1, 3).contiguous());
  CHECK_FALSE(tensor.rows(0, 2).columns(1, 3).contiguous());
}

TEST_CASE("empty views are allowed, others out of range are not") {
  std::vector<float> data(12);
  const Tensor tensor(data.data(), DType::kFloat32, {3, 4});
  CHECK(tensor.rows(3, 3).size() == 0);
  CHECK_THROWS_AS(tensor.rows(2, 4), InternalError);
  CHECK_THROWS_AS(tensor.rows(2, 1), InternalError);
  CHECK_THROWS_AS(tensor.columns(-1, 2), InternalError);
  CHECK_THROWS_AS(tensor.split_last(3), InternalError);
}

TEST_CASE("dtypes have sizes and names") {
  CHECK(dtype_size(DType::kFloat32) == 4);
  CHECK(dtype_size(DType::kFloat16) == 2);
  CHECK(dtype_size(DType::kBFloat16) == 2);
  CHECK(dtype_size(DType::kInt32) == 4);
  for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    CHECK(floating_dtype_from_name(dtype_name(dtype), "dtype") == dtype);
  }
  CHECK_THROWS_AS(floating_dtype_from_name("int32", "dtype"), InvalidArgument);
}

// The value of float16 bits by the definition of IEEE 754.
double float16_by_definition(uint32_t bits) {
  const double sign = bits & 0x8000 ? -1 : 1;
  const int exponent = static_cast<int>(bits >> 10) & 31;
  const int mantissa = static_cast<int>(bits & 1023);
  if (exponent == 31) return mantissa != 0 ? NAN : sign * kInfinity;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST_CASE("every float16 converts exactly, and back to itself") {
  int wrong = 0;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = float16_to_float(static_cast<uint16_t>(bits));
    const double expected = float16_by_definition(bits);
    if (std::isnan(expected)) {
      wrong += !std::isnan(value) || !std::isnan(float16_to_float(float_to_float16(value)));
    } else {
      wrong += value != expected || float_to_float16(value) != bits;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("between two float16 the nearer is taken, and in the middle the even one") {
  int wrong = 0;
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float below = float16_to_float(static_cast<uint16_t>(bits));
    const float above = float16_to_float(static_cast<uint16_t>(bits + 1));
    const float middle = (below + above) / 2;  // exact in float32
    wrong += float_to_float16(middle) != (bits % 2 == 0 ? bits : bits + 1);
    wrong += float_to_float16(std::nextafter(middle, 0.0f)) != bits;
    wrong += float_to_float16(std::nextafter(middle, kInfinity)) != bits + 1;
    wrong += float_to_float16(-middle) != ((bits % 2 == 0 ? bits : bits + 1) | 0x8000);
  }
  CHECK(wrong == 0);
}

TEST_CASE("float16 overflows to infinity and underflows to zero") {
  CHECK(float_to_float16(65504.0f) == 0x7bff);
  CHECK(float_to_float16(65519.0f) == 0x7bff);
  CHECK(float_to_float16(65520.0f) == 0x7c00);
  CHECK(float_to_float16(-1e30f) == 0xfc00);
  CHECK(float_to_float16(kInfinity) == 0x7c00);
  CHECK(float_to_float16(0x1.0p-25f) == 0);
  CHECK(float_to_float16(std::nextafter(0x1.0p-25f, 1.0f)) == 1);
  CHECK(float_to_float16(-0.0f) == 0x8000);
}

TEST_CASE("bfloat16 rounds to nearest, ties to even") {
  int wrong = 0;
  for (uint32_t bits = 0; bits < 0x7f80; ++bits) {
    const uint32_t below = bits << 16;
    const auto convert = [&](uint32_t tail) {
      return float_to_bfloat16(std::bit_cast<float>(below | tail));
    };
    wrong += convert(0) != bits || convert(0x7fff) != bits || convert(0x8001) != bits + 1;
    wrong += convert(0x8000) != (bits % 2 == 0 ? bits : bits + 1);
    wrong += bfloat16_to_float(static_cast<uint16_t>(bits)) != std::bit_cast<float>(below);
  }
  CHECK(wrong == 0);
  CHECK(float_to_bfloat16(kInfinity) == 0x7f80);
  CHECK(float_to_bfloat16(-kInfinity) == 0xff80);
  // A NaN whose payload is all in the lower half stays a NaN.
  CHECK(std::isnan(bfloat16_to_float(float_to_bfloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST_CASE("arrays convert as single values do") {
  const std::vector<float> values = {0.0f, -1.5f, 3.14159f, 1e-7f, 70000.0f};
  for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    std::vector<float> stored(values.size()), back(values.size());
    convert_from_float(values.data(), values.size(), dtype, stored.data());
    convert_to_float(dtype, stored.data(), values.size(), back.data());
    for (size_t i = 0; i < values.size(); ++i) {
      const float expected = dtype == DType::kFloat32 ? values[i]
                             : dtype == DType::kFloat16
                                 ? float16_to_float(float_to_float16(values[i]))
                                 : bfloat16_to_float(float_to_bfloat16(values[i]));
      CHECK(back[i] == expected);
    }
  }
  float out = 0;
  CHECK_THROWS_AS(convert_to_float(DType::kInt32, values.data(), 1, &out), InternalError);
}

}  // namespace
}  // namespace octavo
