#include <doctest/doctest.h>

#include <cmath>
#include <limits>
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

constexpr Activation kActivations[] = {Activation::kNone, Activation::kRelu, Activation::kSilu,
                                       Activation::kGelu, Activation::kGeluTanh};

enum class Where { kSeparate, kOverGate, kHalves };  // halves: of one matrix, in place

struct Case {
  Activation activation;
  int64_t tokens, width;
  Where where = Where::kSeparate;
  Layout layout = Layout::kDense;
  DType dtype = DType::kFloat32;

  std::string name() const {
    return str_cat("gate ", static_cast<int>(activation), " of ", tokens, "x", width, " where ",
                   static_cast<int>(where), " layout ", static_cast<int>(layout), " ",
                   dtype_name(dtype));
  }
};

struct Data {
  explicit Data(const Case& c) {
    Random random(static_cast<uint64_t>(c.tokens * 1000 + c.width));
    gate = rounded(random.normals(c.tokens * c.width, 2.0), c.dtype);
    up = rounded(random.normals(c.tokens * c.width), c.dtype);
  }
  std::vector<float> gate, up;  // [tokens, width]
};

std::vector<float> run(Backend& backend, const Case& c, const Data& data) {
  const DType dtype = backend.activation_dtype(c.dtype);
  const auto gate_of = [&](const Tensor& gate, const Tensor& up, const Tensor& out) {
    backend.gate({.gate = gate, .up = up, .activation = c.activation, .out = out});
  };
  if (c.where == Where::kHalves) {
    std::vector<float> both;  // [tokens, 2 * width]
    for (int64_t t = 0; t < c.tokens; ++t) {
      for (const std::vector<float>* half : {&data.gate, &data.up}) {
        const std::vector<float> row = rows_of(*half, c.width, t, t + 1);
        both.insert(both.end(), row.begin(), row.end());
      }
    }
    const DeviceMatrix matrix(backend, c.tokens, 2 * c.width, both, c.layout, dtype);
    const Tensor first = matrix.view.columns(0, c.width);
    gate_of(first, matrix.view.columns(c.width, 2 * c.width), first);
    const std::vector<float> after = matrix.download();
    std::vector<float> out, up;
    for (int64_t i = 0; i < c.tokens * c.width * 2; ++i) {
      (i % (2 * c.width) < c.width ? out : up).push_back(after[i]);
    }
    check_same_bits(c.name() + ": the second half is unchanged", up, data.up);
    return out;
  }
  const DeviceMatrix gate(backend, c.tokens, c.width, data.gate, c.layout, dtype);
  const DeviceMatrix up(backend, c.tokens, c.width, data.up, beside(c.layout), dtype);
  const DeviceMatrix separate(backend, c.tokens, c.width, c.layout, dtype);
  const DeviceMatrix& target = c.where == Where::kOverGate ? gate : separate;
  gate_of(gate.view, up.view, target.view);
  return target.download();
}

std::vector<float> run(Backend& backend, const Case& c) { return run(backend, c, Data(c)); }

std::vector<float> by_formula(const Case& c, const Data& data) {
  std::vector<float> out;
  for (size_t i = 0; i < data.gate.size(); ++i) {
    out.push_back(
        static_cast<float>(activation_by_formula(c.activation, data.gate[i]) * data.up[i]));
  }
  return out;
}

std::vector<Case> cases(DType dtype = DType::kFloat32) {
  std::vector<Case> cases;
  for (Activation activation : kActivations) {
    for (int64_t tokens : kTokens) cases.push_back({activation, tokens, 33});
    for (int64_t width : kWidths) cases.push_back({activation, 3, width});
    for (Where where : {Where::kSeparate, Where::kOverGate, Where::kHalves}) {
      for (Layout layout : {Layout::kDense, Layout::kStrided}) {
        cases.push_back({activation, 9, 37, where, layout});
        cases.push_back({activation, 2, 64, where, layout});
      }
    }
    if (on_cuda()) cases.push_back({activation, 20, 14336, Where::kHalves});
  }
  for (Case& c : cases) c.dtype = dtype;
  return cases;
}

TEST_CASE("ref: gate is its formula") {
  for (const Case& c : cases()) {
    check_close(c.name(), run(ref(), c), by_formula(c, Data(c)), c.width, 2e-7);
  }
}

// The tail of gelu cancels, x * (1 - almost 1), which shows in a row of one element: the error is
// relative to what cancels there. Nothing cancels in the other activations.
TEST_CASE("gate is close to ref") {
  for (DType dtype : activation_dtypes()) {
    for (const Case& c : cases(dtype)) {
      const bool cancels =
          c.activation == Activation::kGelu || c.activation == Activation::kGeluTanh;
      check_against_ref(c.name(), c.width, [&](Backend& backend) { return run(backend, c); },
                        {.floor = cancels ? 0.25 : 0.0, .dtype = dtype});
    }
  }
}

// Element by element, where an exponential would overflow, vanish or cancel. A float32 tail of
// gelu, x * (1 + erf), errs by an ulp of x.
TEST_CASE("activations hold from end to end") {
  std::vector<float> inputs = {0.0f, -0.0f, 1e-30f, -1e-30f, 1e-40f, -1e-40f};
  for (float x = 1e-4f; x < 1e5f; x *= 1.3f) inputs.insert(inputs.end(), {x, -x});
  for (float x = -20; x <= 20; x += 0.0625f) inputs.push_back(x);
  const auto width = static_cast<int64_t>(inputs.size());
  for (Activation activation : kActivations) {
    const Case c{activation, 1, width};
    Data data(c);
    data.gate = inputs;
    data.up.assign(inputs.size(), 1.0f);
    const std::vector<float> expected = by_formula(c, data);
    for_each_backend([&](Backend& backend, const std::string& name) {
      const double tolerance = name == "ref" ? 1e-7 : 1e-6;
      const std::vector<float> actual = run(backend, c, data);
      double worst = 0;
      int64_t worst_index = 0;
      for (int64_t i = 0; i < width; ++i) {
        const double error = std::fabs(static_cast<double>(actual[i]) - expected[i]);
        const double ratio = error / (tolerance * (std::fabs(inputs[i]) + 1e-35));
        if (ratio <= worst) continue;
        worst = std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio;
        worst_index = i;
      }
      CHECK_MESSAGE(worst <= 1.0, name, ": ", c.name(), " at ", inputs[worst_index], " is ",
                    actual[worst_index], ", expected ", expected[worst_index]);
    });
  }
}

TEST_CASE("gate hands NaN on, so that a broken model is seen") {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  for (Activation activation : kActivations) {
    const Case c{activation, 1, 21};
    Data data(c);
    data.gate[7] = kNaN;
    data.up[19] = kNaN;
    for_each_backend([&](Backend& backend, const std::string& name) {
      const std::vector<float> out = run(backend, c, data);
      for (int64_t i = 0; i < 21; ++i) {
        CHECK_MESSAGE(std::isnan(out[i]) == (i == 7 || i == 19), name, ": ", c.name(), " at ", i);
      }
    });
  }
}

TEST_CASE("gate gives a row the same bits in every batch") {
  for (Activation activation : kActivations) {
    const Case whole{activation, 33, 45}, single{activation, 1, 45};
    const Data data(whole);
    for_each_backend([&](Backend& backend, const std::string& name) {
      const std::vector<float> together = run(backend, whole, data);
      for (int64_t row : {0, 1, 17, 32}) {
        Data row_data = data;
        row_data.gate = rows_of(data.gate, whole.width, row, row + 1);
        row_data.up = rows_of(data.up, whole.width, row, row + 1);
        check_same_bits(str_cat(name, ": row ", row, " of ", whole.name()),
                        run(backend, single, row_data),
                        rows_of(together, whole.width, row, row + 1));
      }
    });
  }
}

}  // namespace
}  // namespace octavo::test
