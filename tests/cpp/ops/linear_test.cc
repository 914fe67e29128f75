#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "base/check.h"
#include "ops/backends.h"
#include "ops/compare.h"
#include "ops/device_matrix.h"
#include "ops/formula.h"
#include "ops/random.h"
#include "ops/shapes.h"
#include "ops/weights.h"

namespace octavo::test {
namespace {

enum class Residual { kNone, kSeparate, kInPlace };

struct Case {
  LinearShape shape;
  DType dtype = DType::kFloat32;
  bool bias = false;
  Activation activation = Activation::kNone;
  Residual residual = Residual::kNone;
  Layout layout = Layout::kDense;
  bool widened = false;  // the result is float32 whatever the activations are, as logits are

  std::string name() const {
    return str_cat("linear ", shape.tokens, "x", shape.in, "x", shape.out, " ", dtype_name(dtype),
                   " bias ", bias, " activation ", static_cast<int>(activation), " residual ",
                   static_cast<int>(residual), " layout ", static_cast<int>(layout), " widened ",
                   widened);
  }
};

// The same on every back end. Scaled so that outputs are of order one.
struct Data {
  explicit Data(const Case& c) {
    Random random(static_cast<uint64_t>(c.shape.tokens + 1000 * c.shape.in + 77 * c.shape.out));
    weight = random.normals(c.shape.out * c.shape.in, 1 / std::sqrt(c.shape.in));
    bias = random.normals(c.shape.out);
    // Numbers that bfloat16 holds, for the back ends that round rows to it.
    x = rounded(random.normals(c.shape.tokens * c.shape.in),
                c.dtype == DType::kBFloat16 ? DType::kBFloat16 : input_dtype(c.dtype));
    residual = rounded(random.normals(c.shape.tokens * c.shape.out), input_dtype(c.dtype));
  }
  std::vector<float> weight;    // [out, in]
  std::vector<float> bias;      // [out]
  std::vector<float> x;         // [tokens, in]
  std::vector<float> residual;  // [tokens, out]
};

std::vector<float> run(Backend& backend, const Case& c, const Data& data) {
  const auto [tokens, in, out] = c.shape;
  const auto weight = StoredMatrix(out, in, data.weight).pack(backend, c.dtype);
  const DeviceVector<float> bias(backend, data.bias);
  const DType dtype = backend.activation_dtype(c.dtype);
  const DeviceMatrix x(backend, tokens, in, data.x, c.layout, dtype);
  const DeviceMatrix residual(backend, tokens, out, data.residual, beside(c.layout), dtype);
  const DeviceMatrix separate(backend, tokens, out, c.layout, c.widened ? DType::kFloat32 : dtype);
  const DeviceMatrix& target = c.residual == Residual::kInPlace ? residual : separate;
  backend.linear({.x = x.view,
                  .weight = weight.get(),
                  .bias = c.bias ? bias.view : Tensor(),
                  .activation = c.activation,
                  .residual = c.residual == Residual::kNone ? Tensor() : residual.view,
                  .out = target.view});
  return target.download();
}

std::vector<float> run(Backend& backend, const Case& c) { return run(backend, c, Data(c)); }

std::vector<float> by_formula(const Case& c) {
  const Data data(c);
  const std::vector<float> weight = rounded(data.weight, c.dtype);
  std::vector<float> out;
  for (int64_t t = 0; t < c.shape.tokens; ++t) {
    for (int64_t o = 0; o < c.shape.out; ++o) {
      long double sum = c.bias ? data.bias[o] : 0.0L;
      for (int64_t i = 0; i < c.shape.in; ++i) {
        sum += static_cast<long double>(data.x[t * c.shape.in + i]) * weight[o * c.shape.in + i];
      }
      double result = static_cast<double>(activation_by_formula(c.activation, sum));
      if (c.residual != Residual::kNone) result += data.residual[out.size()];
      out.push_back(static_cast<float>(result));
    }
  }
  return out;
}

// Every shape, and every option with some shape.
std::vector<Case> cases() {
  std::vector<Case> cases;
  for (DType dtype : kFloatingDTypes) {
    for (const LinearShape& shape : kLinearShapes) cases.push_back({shape, dtype});
    for (const LinearShape& shape : {LinearShape{1, 65, 39}, LinearShape{11, 96, 50}}) {
      for (Layout layout : {Layout::kDense, Layout::kStrided}) {
        for (Residual residual : {Residual::kNone, Residual::kSeparate, Residual::kInPlace}) {
          cases.push_back({shape, dtype, false, Activation::kNone, residual, layout});
          cases.push_back({shape, dtype, true, Activation::kGelu, residual, layout});
        }
      }
      for (Activation activation : {Activation::kNone, Activation::kRelu, Activation::kSilu,
                                    Activation::kGelu, Activation::kGeluTanh}) {
        cases.push_back({shape, dtype, true, activation});
      }
    }
    for (const LinearShape& shape : {LinearShape{1, 64, 1000}, LinearShape{33, 100, 77}}) {
      for (Layout layout : {Layout::kDense, Layout::kStrided}) {
        cases.push_back({shape, dtype, false, Activation::kNone, Residual::kNone, layout, true});
      }
    }
  }
  return cases;
}

// A single output may cancel: its error is that of its terms, which are of order one.
constexpr double kFloor = 0.25;

// The sum may be rounded before its bias, activation and residual. A widened one is not.
Bounds bounds_of(const Case& c) {
  return {.floor = kFloor, .dtype = c.dtype, .roundings = c.widened ? 0.0 : 1.0};
}

TEST_CASE("ref: linear is its formula") {
  for (const Case& c : cases()) {
    check_close(c.name(), run(ref(), c), by_formula(c), c.shape.out, 1e-7, kFloor);
  }
}

TEST_CASE("linear is close to ref") {
  for (const Case& c : cases()) {
    check_against_ref(
        c.name(), c.shape.out, [&](Backend& backend) { return run(backend, c); }, bounds_of(c));
  }
}

TEST_CASE("linear rounds rows to bfloat16 or takes them as they are") {
  if (skipped_on_cuda("rows are of the weights' dtype before they come")) return;
  const Case c{{5, 130, 70}, DType::kBFloat16};
  Data data(c);
  data.x = Random(8).normals(5 * 130);
  Data rounded_data = data;
  rounded_data.x = rounded(data.x, DType::kBFloat16);
  for (const NamedBackend& other : other_backends()) {
    const std::vector<float> expected = run(ref(), c, other.rounds_rows ? rounded_data : data);
    check_close(other.name, run(*other.backend, c, data), expected, 70, kTolerance, kFloor);
  }
}

TEST_CASE("linear gives a row the same bits in every batch") {
  if (skipped_on_cuda(kBatchInvariance)) return;
  for (DType dtype : kFloatingDTypes) {
    for (Activation activation : {Activation::kNone, Activation::kSilu}) {
      Case whole{{70, 577, 70}, dtype, true, activation, Residual::kSeparate};
      const Data data(whole);
      for_each_backend([&](Backend& backend, const std::string& name) {
        const std::vector<float> together = run(backend, whole, data);
        for (int64_t size : {1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 23, 31, 32, 33, 34, 48, 65, 69}) {
          for (int64_t begin : {int64_t{0}, (70 - size) / 2, 70 - size}) {
            Case part = whole;
            part.shape.tokens = size;
            Data part_data = data;
            part_data.x = rows_of(data.x, whole.shape.in, begin, begin + size);
            part_data.residual = rows_of(data.residual, whole.shape.out, begin, begin + size);
            check_same_bits(str_cat(name, ": rows ", begin, " + ", size, " of ", whole.name()),
                            run(backend, part, part_data),
                            rows_of(together, whole.shape.out, begin, begin + size));
          }
        }
      });
    }
  }
}

// Where there is AMX, that tells whether the model is what the processor does.
TEST_CASE("linear has the same bits by AMX and by its model") {
  const Case c{{49, 1000, 70}, DType::kBFloat16};
  const Data data(c);
  std::map<std::string, std::vector<float>> results;
  for (const NamedBackend& other : other_backends()) {
    results[other.isa] = run(*other.backend, c, data);
  }
  const auto model = results.find("cpu/avx512_amx_model"), amx = results.find("cpu/avx512_amx");
  if (amx == results.end()) return;
  REQUIRE(model != results.end());
  check_same_bits("avx512_amx", amx->second, model->second);
}

TEST_CASE("linear keeps a NaN in its own row") {
  constexpr int64_t kRow = 4, kOut = 45;
  for (DType dtype : kFloatingDTypes) {
    const Case c{{9, 70, kOut}, dtype};
    const Data clean(c);
    Data dirty = clean;
    dirty.x[kRow * 70 + 33] = NAN;
    for_each_backend([&](Backend& backend, const std::string& name) {
      std::vector<float> expected = run(backend, c, clean);
      std::vector<float> actual = run(backend, c, dirty);
      for (int64_t i = kRow * kOut; i < (kRow + 1) * kOut; ++i) {
        CHECK_MESSAGE(std::isnan(actual[i]), name, ": element ", i);
        expected[i] = actual[i] = 0;
      }
      check_same_bits(name + ": the other rows of " + c.name(), actual, expected);
    });
  }
}

TEST_CASE("ref: linear refuses a weight that another back end packed") {
  const StoredMatrix matrix(2, 2, {1, 2, 3, 4});
  for (const NamedBackend& other : other_backends()) {
    const auto foreign = matrix.pack(*other.backend, DType::kFloat32);
    const DeviceMatrix x(ref(), 1, 2, {1, 1}), out(ref(), 1, 2);
    const LinearArgs args{.x = x.view, .weight = foreign.get(), .out = out.view};
    CHECK_THROWS_AS(ref().linear(args), InternalError);
  }
}

}  // namespace
}  // namespace octavo::test
