#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
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
  int64_t tokens, hidden, intermediate;
  DType dtype = DType::kFloat32;
  Activation activation = Activation::kSilu;
  bool bias = false;
  Residual residual = Residual::kNone;
  Layout layout = Layout::kDense;

  std::string name() const {
    return str_cat("gated_mlp ", tokens, "x", hidden, "x", intermediate, " ", dtype_name(dtype),
                   " activation ", static_cast<int>(activation), " bias ", bias, " residual ",
                   static_cast<int>(residual), " layout ", static_cast<int>(layout));
  }
};

struct Data {
  explicit Data(const Case& c) {
    Random random(static_cast<uint64_t>(c.tokens + 1000 * c.hidden + 77 * c.intermediate));
    gate_up = random.normals(2 * c.intermediate * c.hidden, 1 / std::sqrt(c.hidden));
    down = random.normals(c.hidden * c.intermediate, 1 / std::sqrt(c.intermediate));
    gate_up_bias = random.normals(2 * c.intermediate);
    down_bias = random.normals(c.hidden);
    x = rounded(random.normals(c.tokens * c.hidden),
                c.dtype == DType::kBFloat16 ? DType::kBFloat16 : input_dtype(c.dtype));
    residual = rounded(random.normals(c.tokens * c.hidden), input_dtype(c.dtype));
  }
  std::vector<float> gate_up;       // [2 * intermediate, hidden]
  std::vector<float> down;          // [hidden, intermediate]
  std::vector<float> gate_up_bias;  // [2 * intermediate]
  std::vector<float> down_bias;     // [hidden]
  std::vector<float> x, residual;   // [tokens, hidden]
};

enum class Form { kOwn, kComposition };

std::vector<float> run(Backend& backend, const Case& c, const Data& data, Form form) {
  // Gate and up are two segments, as in a checkpoint.
  const int64_t half = c.intermediate * c.hidden;
  const StoredMatrix gate(c.intermediate, c.hidden, rows_of(data.gate_up, 1, 0, half));
  const StoredMatrix up(c.intermediate, c.hidden, rows_of(data.gate_up, 1, half, 2 * half));
  const std::vector<WeightSegment> segments = {gate.segment(), up.segment()};
  const auto gate_up = backend.pack(segments, c.dtype);
  const auto down = StoredMatrix(c.hidden, c.intermediate, data.down).pack(backend, c.dtype);
  const DeviceVector<float> gate_up_bias(backend, data.gate_up_bias);
  const DeviceVector<float> down_bias(backend, data.down_bias);
  const DType dtype = backend.activation_dtype(c.dtype);
  const DeviceMatrix x(backend, c.tokens, c.hidden, data.x, c.layout, dtype);
  const DeviceMatrix residual(backend, c.tokens, c.hidden, data.residual, beside(c.layout), dtype);
  const DeviceMatrix scratch(backend, c.tokens, 2 * c.intermediate, beside(c.layout), dtype);
  const DeviceMatrix separate(backend, c.tokens, c.hidden, c.layout, dtype);
  const DeviceMatrix& target = c.residual == Residual::kInPlace ? residual : separate;
  const GatedMlpArgs args{.x = x.view,
                          .gate_up = gate_up.get(),
                          .gate_up_bias = c.bias ? gate_up_bias.view : Tensor(),
                          .down = down.get(),
                          .down_bias = c.bias ? down_bias.view : Tensor(),
                          .activation = c.activation,
                          .scratch = scratch.view,
                          .residual = c.residual == Residual::kNone ? Tensor() : residual.view,
                          .out = target.view};
  if (form == Form::kOwn) backend.gated_mlp(args);
  if (form == Form::kComposition) backend.Backend::gated_mlp(args);
  check_same_bits(c.name() + ": x is unchanged", x.download(), data.x);
  return target.download();
}

std::vector<float> run(Backend& backend, const Case& c, Form form = Form::kOwn) {
  return run(backend, c, Data(c), form);
}

std::vector<double> project(const std::vector<float>& weight, const std::vector<double>& x,
                            const std::vector<float>* bias) {
  std::vector<double> out;
  for (size_t o = 0; o < weight.size() / x.size(); ++o) {
    double sum = bias != nullptr ? (*bias)[o] : 0.0;
    for (size_t i = 0; i < x.size(); ++i) sum += weight[o * x.size() + i] * x[i];
    out.push_back(sum);
  }
  return out;
}

// In double throughout, without the composition's rounding of the intermediate row.
std::vector<float> by_formula(const Case& c) {
  const Data data(c);
  const std::vector<float> gate_up = rounded(data.gate_up, c.dtype);
  const std::vector<float> down = rounded(data.down, c.dtype);
  std::vector<float> out;
  for (int64_t t = 0; t < c.tokens; ++t) {
    const std::vector<float> row = rows_of(data.x, c.hidden, t, t + 1);
    const std::vector<double> x(row.begin(), row.end());
    std::vector<double> hidden = project(gate_up, x, c.bias ? &data.gate_up_bias : nullptr);
    for (int64_t i = 0; i < c.intermediate; ++i) {
      const long double gate = activation_by_formula(c.activation, hidden[i]);
      hidden[i] = static_cast<double>(gate * hidden[c.intermediate + i]);
    }
    hidden.resize(static_cast<size_t>(c.intermediate));
    for (double value : project(down, hidden, c.bias ? &data.down_bias : nullptr)) {
      if (c.residual != Residual::kNone) value += data.residual[out.size()];
      out.push_back(static_cast<float>(value));
    }
  }
  return out;
}

std::vector<Case> cases() {
  std::vector<Case> cases;
  for (DType dtype : kFloatingDTypes) {
    for (int64_t tokens : kTokens) cases.push_back({tokens, 24, 40, dtype});
    for (auto [hidden, intermediate] : {std::pair{1, 1}, {3, 7}, {33, 65}, {64, 172}, {100, 31}}) {
      cases.push_back({3, hidden, intermediate, dtype});
    }
    for (Residual residual : {Residual::kNone, Residual::kSeparate, Residual::kInPlace}) {
      for (Layout layout : {Layout::kDense, Layout::kStrided}) {
        cases.push_back({5, 36, 50, dtype, Activation::kGeluTanh, true, residual, layout});
        cases.push_back({1, 64, 96, dtype, Activation::kSilu, false, residual, layout});
      }
    }
  }
  // An intermediate size of whole panels, which a fused kernel is made for.
  for (DType dtype : kFloatingDTypes) {
    for (int64_t tokens : {0, 1, 2, 5, 13, 33, 70}) {
      for (int64_t intermediate : {32, 64, 160}) {
        cases.push_back({tokens, 40, intermediate, dtype, Activation::kSilu, true,
                         Residual::kInPlace, Layout::kStrided});
      }
    }
    cases.push_back({7, 300, 256, dtype, Activation::kGeluTanh});
  }
  for (Activation activation : {Activation::kRelu, Activation::kGelu}) {
    cases.push_back({2, 16, 48, DType::kFloat32, activation});
  }
  return cases;
}

constexpr double kFloor = 0.25;  // the scale of what cancels in a short row

// 16-bit gates and ups are rounded, and their product: each errs by half an ulp, the sum of many of
// them by 0.7 of an ulp of the row (three roundings of rms 0.4), and the largest by five times
// that.
Bounds bounds_of(const Case& c) {
  return {.floor = kFloor,
          .rounded = c.dtype == DType::kBFloat16 ? 0x1p-7 : 0.0,
          .dtype = c.dtype,
          .roundings = 4.0};
}

TEST_CASE("ref: gated_mlp is its formula") {
  for (const Case& c : cases()) {
    check_close(c.name(), run(ref(), c), by_formula(c), c.hidden, 5e-7, kFloor);
  }
}

TEST_CASE("gated_mlp is close to ref") {
  for (const Case& c : cases()) {
    // Between its products the rows are rounded again, by 2^-9 of each element.
    check_against_ref(
        c.name(), c.hidden, [&](Backend& backend) { return run(backend, c); }, bounds_of(c));
  }
}

TEST_CASE("gated_mlp is its composition") {
  for (const Case& c : cases()) {
    for_each_backend([&](Backend& backend, const std::string& name) {
      const double ulp = ulps(backend.activation_dtype(c.dtype), bounds_of(c).roundings);
      check_close(name + ": composition of " + c.name(), run(backend, c),
                  run(backend, c, Form::kComposition), c.hidden, std::max(kTolerance, ulp), kFloor,
                  ulp);
    });
  }
}

TEST_CASE("gated_mlp gives a row the same bits in every batch") {
  if (skipped_on_cuda(kBatchInvariance)) return;
  for (DType dtype : kFloatingDTypes) {
    for (int64_t intermediate : {128, 130}) {
      const Case whole{37, 66, intermediate, dtype};
      const Data data(whole);
      for_each_backend([&](Backend& backend, const std::string& name) {
        const std::vector<float> together = run(backend, whole, data, Form::kOwn);
        for (int64_t size : {1, 3, 8, 17}) {
          for (int64_t begin : {int64_t{0}, 37 - size}) {
            Case part = whole;
            part.tokens = size;
            Data part_data = data;
            part_data.x = rows_of(data.x, whole.hidden, begin, begin + size);
            part_data.residual = rows_of(data.residual, whole.hidden, begin, begin + size);
            check_same_bits(str_cat(name, ": rows ", begin, " + ", size, " of ", whole.name()),
                            run(backend, part, part_data, Form::kOwn),
                            rows_of(together, whole.hidden, begin, begin + size));
          }
        }
      });
    }
  }
}

}  // namespace
}  // namespace octavo::test
