// Products of matrices at the sizes of models: whole ones on the back end, of which some columns
// are compared with the reference's, made of those rows of the weight alone.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "base/check.h"
#include "ops/backends.h"
#include "ops/compare.h"
#include "ops/device_matrix.h"
#include "ops/random.h"
#include "ops/shapes.h"
#include "ops/weights.h"

namespace octavo::test {
namespace {

struct Product {
  int64_t in, out;
  bool logits = false;  // float32 out, of many columns
};
// Llama-3-8B's qkv, o, down and half of gate_up; OPT-125m's; SmolLM2's; heads of vocabularies that
// are multiples of nothing.
const std::vector<Product> kProducts = {
    {4096, 6144}, {4096, 4096},       {14336, 4096},       {4096, 14336},     {768, 2304},
    {768, 3072},  {3072, 768},        {576, 960},          {1536, 576},       {2048, 50, false},
    {4099, 1001}, {768, 50272, true}, {4096, 32003, true}, {576, 49152, true}};
const std::vector<int64_t> kRows = {1,  2,  3,  4,  5,  7,  8,  9,   16,
                                    17, 24, 32, 33, 63, 64, 65, 128, 300};

std::vector<int64_t> chosen_columns(int64_t out) {
  std::set<int64_t> columns;
  Random random(1);
  for (int64_t edge : {0, 8, 16, 32, 64, 128, 256}) {
    for (int64_t column : {edge - 1, edge, out - 1 - edge}) columns.insert(column);
  }
  for (int i = 0; i < 24; ++i) columns.insert(random.below(out));
  std::vector<int64_t> chosen;
  for (int64_t column : columns) {
    if (column >= 0 && column < out) chosen.push_back(column);
  }
  return chosen;
}

std::vector<float> columns_of(const std::vector<float>& values, int64_t cols,
                              const std::vector<int64_t>& chosen) {
  std::vector<float> result;
  for (size_t row = 0; row < values.size() / static_cast<size_t>(cols); ++row) {
    for (int64_t column : chosen) result.push_back(values[row * cols + column]);
  }
  return result;
}

// Of a sum of `in` terms that is of order one: float32 errs at each by half of 2^-23, to both
// sides. Tensor cores cut off 2^-23 and less of the sum after every sixteen, to one side.
double sum_error(int64_t in, DType dtype) {
  const auto terms = static_cast<double>(in);
  return dtype == DType::kFloat32 ? std::sqrt(terms) * 0x1p-23 : terms / 16 * 0x1p-22;
}

struct Data {
  Data(const Product& p, DType dtype, int64_t tokens) {
    Random random(static_cast<uint64_t>(p.in + p.out));
    weight = random.nearly_normals(p.in * p.out);
    for (float& value : weight) value /= std::sqrt(static_cast<float>(p.in));
    bias = random.nearly_normals(p.out);
    x = rounded(random.nearly_normals(tokens * p.in), dtype);
    residual = rounded(random.nearly_normals(tokens * p.out), dtype);
  }
  std::vector<float> weight, bias, x, residual;  // [out, in], [out], [tokens, in], [tokens, out]
};

struct Finish {
  bool bias, residual;
  Activation activation;
};

// [tokens, out] of the first `tokens` rows of the data.
std::vector<float> linear(Backend& backend, const PackedWeight& weight, const Data& data,
                          int64_t tokens, const Finish& finish, bool logits) {
  const int64_t in = weight.in_features(), out = weight.out_features();
  const DType dtype = backend.activation_dtype(weight.dtype());
  const DeviceMatrix x(backend, tokens, in, rows_of(data.x, in, 0, tokens), Layout::kDense, dtype);
  const DeviceMatrix residual(backend, tokens, out, rows_of(data.residual, out, 0, tokens),
                              Layout::kDense, dtype);
  const DeviceVector<float> bias(backend, data.bias);
  const DeviceMatrix result(backend, tokens, out, Layout::kDense, logits ? DType::kFloat32 : dtype);
  backend.linear({.x = x.view,
                  .weight = &weight,
                  .bias = finish.bias ? bias.view : Tensor(),
                  .activation = finish.activation,
                  .residual = finish.residual ? residual.view : Tensor(),
                  .out = result.view});
  return result.download();
}

void check(const Product& p, DType dtype, const std::vector<int64_t>& rows) {
  const Data data(p, dtype, *std::ranges::max_element(rows));
  const std::vector<int64_t> chosen = chosen_columns(p.out);
  const auto count = static_cast<int64_t>(chosen.size());
  Data part = data;  // of the chosen columns
  part.weight.clear();
  for (int64_t row : chosen) {
    const std::vector<float> values = rows_of(data.weight, p.in, row, row + 1);
    part.weight.insert(part.weight.end(), values.begin(), values.end());
  }
  part.bias = columns_of(data.bias, p.out, chosen);
  part.residual = columns_of(data.residual, p.out, chosen);
  const auto expected_weight = StoredMatrix(count, p.in, part.weight).pack(ref(), dtype);
  for (const NamedBackend& other : other_backends()) {
    const auto weight = StoredMatrix(p.out, p.in, data.weight).pack(*other.backend, dtype);
    for (int64_t tokens : rows) {
      const bool plain = p.logits || tokens % 2 == 0;
      const Finish finish{!plain, !plain && tokens % 3 != 0,
                          tokens % 5 == 3 && !p.logits ? Activation::kRelu : Activation::kNone};
      const std::vector<float> all =
          linear(*other.backend, *weight, data, tokens, finish, p.logits);
      const std::string what =
          str_cat(other.name, ": ", tokens, "x", p.in, "x", p.out, " ", dtype_name(dtype), " bias ",
                  finish.bias, " residual ", finish.residual, " relu ",
                  static_cast<int>(finish.activation));
      const double ulp = p.logits ? 0.0 : ulps(other.backend->activation_dtype(dtype), 1);
      const double tolerance = std::max({kTolerance, sum_error(p.in, dtype), ulp});
      const std::vector<float> actual = columns_of(all, p.out, chosen);
      const std::vector<float> expected =
          linear(ref(), *expected_weight, part, tokens, finish, p.logits);
      check_close(what, actual, expected, count, tolerance, 0.25, ulp);
      check_cosine(what, actual, expected);
      const auto finite = [](float value) { return std::isfinite(value); };
      CHECK_MESSAGE(std::ranges::all_of(all, finite), what, ": a column that is not compared");
    }
  }
}

void check_all(DType dtype) {
  if (!on_cuda()) return check({576, 960}, dtype, {1, 33});
  for (const Product& p : kProducts) check(p, dtype, kRows);
}

TEST_CASE("float32: linear at models' sizes") { check_all(DType::kFloat32); }
TEST_CASE("bfloat16: linear at models' sizes") { check_all(DType::kBFloat16); }
TEST_CASE("float16: linear at models' sizes") { check_all(DType::kFloat16); }

// Against its composition, which the tests above hold to the reference.
TEST_CASE("gated_mlp at models' sizes") {
  if (!on_cuda()) return;
  Backend& cuda = *other_backends().front().backend;
  struct Sizes {
    int64_t hidden, intermediate;
  };
  for (DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
    for (const auto& [hidden, intermediate] :
         {Sizes{4096, 14336}, Sizes{576, 1536}, Sizes{2048, 8192}, Sizes{768, 3072}}) {
      const Data up({hidden, 2 * intermediate}, dtype, 300), down({intermediate, hidden}, dtype, 1);
      const auto gate_up = StoredMatrix(2 * intermediate, hidden, up.weight).pack(cuda, dtype);
      const auto down_weight = StoredMatrix(hidden, intermediate, down.weight).pack(cuda, dtype);
      for (int64_t tokens : {1, 2, 3, 8, 16, 17, 33, 64, 128, 300}) {
        const auto run = [&](bool own) {
          const DeviceMatrix x(cuda, tokens, hidden, rows_of(up.x, hidden, 0, tokens),
                               Layout::kDense, dtype);
          const DeviceMatrix scratch(cuda, tokens, 2 * intermediate, Layout::kDense, dtype);
          const DeviceMatrix out(cuda, tokens, hidden, rows_of(up.x, hidden, 0, tokens),
                                 Layout::kDense, dtype);
          const GatedMlpArgs args{.x = x.view,
                                  .gate_up = gate_up.get(),
                                  .down = down_weight.get(),
                                  .activation = Activation::kSilu,
                                  .scratch = scratch.view,
                                  .residual = out.view,
                                  .out = out.view};
          own ? cuda.gated_mlp(args) : cuda.Backend::gated_mlp(args);
          return out.download();
        };
        const double ulp = ulps(dtype, 4);
        const std::string what =
            str_cat("gated_mlp ", tokens, "x", hidden, "x", intermediate, " ", dtype_name(dtype));
        const std::vector<float> own = run(true), composed = run(false);
        check_close(what, own, composed, hidden, std::max(kTolerance, ulp), 0.25, ulp);
        check_cosine(what, own, composed);
      }
    }
  }
}

}  // namespace
}  // namespace octavo::test
