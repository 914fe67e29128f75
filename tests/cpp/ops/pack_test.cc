// What a weight is after packing, read back by `embed`: one row an id.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "base/check.h"
#include "ops/backends.h"
#include "ops/compare.h"
#include "ops/device_matrix.h"
#include "ops/random.h"
#include "ops/shapes.h"
#include "ops/weights.h"
#include "quant/decode.h"

namespace octavo::test {
namespace {

std::vector<float> decoded(const QuantizedMatrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.cols));
  for (int64_t row = 0; row < matrix.rows; ++row) {
    decode_row(matrix, row, values.data() + row * matrix.cols);
  }
  return values;
}

TEST_CASE("pack rounds to the dtype and keeps the order of rows and columns") {
  for (DType dtype : kFloatingDTypes) {
    for (auto [rows, cols] : {std::pair{1, 1}, {3, 5}, {16, 16}, {17, 31}, {33, 64}, {70, 129}}) {
      Random random(static_cast<uint64_t>(rows * cols));
      const std::vector<float> values = random.normals(int64_t{rows} * cols);
      const StoredMatrix matrix(rows, cols, values);
      for_each_backend([&](Backend& backend, const std::string& name) {
        const auto weight = matrix.pack(backend, dtype);
        CHECK(weight->out_features() == rows);
        CHECK(weight->in_features() == cols);
        CHECK(weight->dtype() == dtype);
        CHECK(weight->bytes() >= rows * cols * dtype_size(dtype));
        check_same_bits(str_cat(name, ": pack ", rows, "x", cols, " ", dtype_name(dtype)),
                        read_back(backend, *weight), rounded(values, dtype));
      });
    }
  }
}

TEST_CASE("pack takes float16 and bfloat16 checkpoints as they are") {
  const std::vector<float> values = rounded(Random(5).normals(19 * 23), DType::kBFloat16);
  std::vector<uint16_t> bfloat16(values.size());
  convert_from_float(values.data(), values.size(), DType::kBFloat16, bfloat16.data());
  std::vector<uint16_t> float16(values.size());
  convert_from_float(values.data(), values.size(), DType::kFloat16, float16.data());
  const StoredMatrix from_bfloat16(Scheme::kBF16, 19, 23, bfloat16.data());
  const StoredMatrix from_float16(Scheme::kF16, 19, 23, float16.data());
  const std::vector<float> values16 = rounded(values, DType::kFloat16);
  for_each_backend([&](Backend& backend, const std::string& name) {
    for (DType dtype : kFloatingDTypes) {
      const std::string what = str_cat(name, ": to ", dtype_name(dtype));
      check_same_bits(what, read_back(backend, *from_bfloat16.pack(backend, dtype)),
                      rounded(values, dtype));
      check_same_bits(what, read_back(backend, *from_float16.pack(backend, dtype)),
                      rounded(values16, dtype));
    }
  });
}

// Segments in order, each with its own form, and one matrix that the rows come from.
TEST_CASE("pack stacks segments, permutes rows and transposes") {
  constexpr int64_t kIn = 21;
  Random random(11);
  const std::vector<float> plain = random.normals(7 * kIn);
  const std::vector<float> ordered = random.normals(18 * kIn);
  const std::vector<float> transposed = random.normals(kIn * 13);  // [in, out]
  const std::vector<float> both = random.normals(kIn * 10);        // [in, out]
  const std::vector<int32_t> order18 = random.permutation(18), order10 = random.permutation(10);
  const StoredMatrix first(7, kIn, plain), second(18, kIn, ordered), third(kIn, 13, transposed),
      fourth(kIn, 10, both);
  const std::vector<WeightSegment> segments = {first.segment(), second.segment(order18),
                                               third.segment({}, true),
                                               fourth.segment(order10, true)};
  std::vector<float> expected = plain;
  for (int32_t row : order18) {
    expected.insert(expected.end(), ordered.begin() + row * kIn, ordered.begin() + (row + 1) * kIn);
  }
  for (int64_t o = 0; o < 13; ++o) {
    for (int64_t i = 0; i < kIn; ++i) expected.push_back(transposed[i * 13 + o]);
  }
  for (int32_t row : order10) {
    for (int64_t i = 0; i < kIn; ++i) expected.push_back(both[i * 10 + row]);
  }
  for_each_backend([&](Backend& backend, const std::string& name) {
    for (DType dtype : kFloatingDTypes) {
      const auto weight = backend.pack(segments, dtype);
      CHECK(weight->out_features() == 48);
      CHECK(weight->in_features() == kIn);
      check_same_bits(str_cat(name, ": segments ", dtype_name(dtype)), read_back(backend, *weight),
                      rounded(expected, dtype));
    }
  });
}

TEST_CASE("pack mixes encodings in one weight") {
  constexpr int64_t kIn = 64;
  Random random(3);
  std::vector<StoredMatrix> matrices;
  for (Scheme scheme : {Scheme::kQ8_0, Scheme::kQ4_0, Scheme::kQ4_1}) {
    matrices.push_back(random_blocks(scheme, 9, kIn, random));
  }
  matrices.emplace_back(5, kIn, random.normals(5 * kIn, 0.1));
  std::vector<WeightSegment> segments;
  std::vector<float> expected;
  for (const StoredMatrix& matrix : matrices) {
    segments.push_back(matrix.segment());
    const std::vector<float> values = decoded(matrix.matrix);
    expected.insert(expected.end(), values.begin(), values.end());
  }
  // Float32: a back end may keep the encoded form, which holds the same values.
  for_each_backend([&](Backend& backend, const std::string& name) {
    check_close(name + ": encodings", read_back(backend, *backend.pack(segments, DType::kFloat32)),
                expected, kIn, 1e-6);
  });
}

TEST_CASE("ref: pack refuses segments that do not fit") {
  const StoredMatrix wide(2, 3, {1, 2, 3, 4, 5, 6}), narrow(3, 2, {1, 2, 3, 4, 5, 6});
  const auto pack = [](std::vector<WeightSegment> segments) {
    ref().pack(segments, DType::kFloat32);
  };
  CHECK_THROWS_AS(pack({}), InternalError);
  CHECK_THROWS_AS(pack({wide.segment(), narrow.segment()}), InternalError);
  CHECK_THROWS_AS(pack({wide.segment({0})}), InternalError);
  CHECK_THROWS_AS(pack({wide.segment({0, 2})}), InternalError);
  pack({wide.segment(), narrow.segment({}, true)});
}

}  // namespace
}  // namespace octavo::test
