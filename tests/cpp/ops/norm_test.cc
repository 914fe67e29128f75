#include <doctest/doctest.h>

#include <cmath>
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

enum class Norm { kRms, kLayer, kLayerWithoutBias };

struct Case {
  Norm norm;
  int64_t tokens, hidden;
  Layout layout = Layout::kDense;
  bool in_place = false;
  double mean = 0.5;
  double scale = 1.0;
  float eps = 1e-5f;
  DType dtype = DType::kFloat32;

  std::string name() const {
    return str_cat("norm ", static_cast<int>(norm), " of ", tokens, "x", hidden, " layout ",
                   static_cast<int>(layout), " in place ", in_place, " mean ", mean, " scale ",
                   scale, " eps ", eps, " ", dtype_name(dtype));
  }
};

struct Data {
  explicit Data(const Case& c) {
    Random random(static_cast<uint64_t>(c.tokens * 1000 + c.hidden));
    x = rounded(random.normals(c.tokens * c.hidden, c.scale, c.mean), c.dtype);
    weight = random.normals(c.hidden, 0.3, 1.0);
    bias = random.normals(c.hidden);
  }
  std::vector<float> x;       // [tokens, hidden]
  std::vector<float> weight;  // [hidden]
  std::vector<float> bias;    // [hidden]
};

std::vector<float> run(Backend& backend, const Case& c, const Data& data) {
  const DeviceVector<float> weight(backend, data.weight), bias(backend, data.bias);
  const DType dtype = backend.activation_dtype(c.dtype);
  const DeviceMatrix x(backend, c.tokens, c.hidden, data.x, c.layout, dtype);
  const DeviceMatrix separate(backend, c.tokens, c.hidden, beside(c.layout), dtype);
  const DeviceMatrix& target = c.in_place ? x : separate;
  if (c.norm == Norm::kRms) {
    backend.rms_norm({.x = x.view, .weight = weight.view, .eps = c.eps, .out = target.view});
  } else {
    backend.layer_norm({.x = x.view,
                        .weight = weight.view,
                        .bias = c.norm == Norm::kLayer ? bias.view : Tensor(),
                        .eps = c.eps,
                        .out = target.view});
  }
  if (!c.in_place) check_same_bits(c.name() + ": x is unchanged", x.download(), data.x);
  return target.download();
}

std::vector<float> run(Backend& backend, const Case& c) { return run(backend, c, Data(c)); }

// By moments, not by deviations as the back ends do.
std::vector<float> by_formula(const Case& c) {
  const Data data(c);
  std::vector<float> out;
  for (int64_t t = 0; t < c.tokens; ++t) {
    long double sum = 0, sum_squares = 0;
    for (int64_t i = 0; i < c.hidden; ++i) {
      const long double x = data.x[t * c.hidden + i];
      sum += x;
      sum_squares += x * x;
    }
    const bool rms = c.norm == Norm::kRms;
    const long double mean = rms ? 0.0L : sum / c.hidden;
    const long double variance = sum_squares / c.hidden - mean * mean;
    for (int64_t i = 0; i < c.hidden; ++i) {
      const long double unit =
          (data.x[t * c.hidden + i] - mean) / std::sqrt(variance + static_cast<long double>(c.eps));
      const long double bias = c.norm == Norm::kLayer ? data.bias[i] : 0.0L;
      out.push_back(static_cast<float>(unit * data.weight[i] + bias));
    }
  }
  return out;
}

std::vector<Case> cases(DType dtype = DType::kFloat32) {
  std::vector<Case> cases;
  for (Norm norm : {Norm::kRms, Norm::kLayer, Norm::kLayerWithoutBias}) {
    for (int64_t tokens : kTokens) cases.push_back({norm, tokens, 33});
    for (int64_t width : kWidths) cases.push_back({norm, 3, width});
    for (int64_t width : {2048, 4099}) cases.push_back({norm, 2, width});
    for (int64_t width : {20, 64, 101}) {
      cases.push_back({norm, 5, width, Layout::kStrided});
      cases.push_back({norm, 5, width, Layout::kStrided, true});
      cases.push_back({norm, 5, width, Layout::kDense, true});
    }
    cases.push_back({norm, 3, 96, Layout::kDense, false, 0.0, 1e3});
    cases.push_back({norm, 3, 96, Layout::kDense, false, 0.0, 1e-3});  // eps weighs
    cases.push_back({norm, 3, 96, Layout::kDense, false, 0.0, 1e-8, 1e-12f});
    cases.push_back({norm, 3, 96, Layout::kDense, false, 0.0, 0.0});  // all zeros
    if (on_cuda()) {  // a model's rows, few and many
      for (int64_t width : {768, 4096, 5120, 8192, 16384}) {
        for (int64_t tokens : {1, 40}) cases.push_back({norm, tokens, width});
      }
    }
  }
  for (Case& c : cases) c.dtype = dtype;
  return cases;
}

TEST_CASE("ref: norms are their formulas") {
  for (const Case& c : cases()) check_close(c.name(), run(ref(), c), by_formula(c), c.hidden, 2e-7);
  // A mean of many deviations, which a single pass in float32 would lose.
  for (Norm norm : {Norm::kRms, Norm::kLayer}) {
    const Case far{norm, 3, 300, Layout::kDense, false, 1000.0};
    check_close(far.name(), run(ref(), far), by_formula(far), far.hidden, 2e-7);
  }
}

TEST_CASE("norms are close to ref") {
  for (DType dtype : activation_dtypes()) {
    for (const Case& c : cases(dtype)) {
      check_against_ref(c.name(), c.hidden, [&](Backend& backend) { return run(backend, c); },
                        {.dtype = dtype});
    }
  }
}

// Float32 deviations from a float32 mean of 100 err by 100 * 2^-24; from the mean of squares of a
// single pass they would err a hundred times more.
TEST_CASE("layer_norm keeps its digits where the mean is large") {
  const Case far{Norm::kLayer, 3, 300, Layout::kDense, false, 100.0};
  check_against_ref(far.name(), far.hidden, [&](Backend& backend) { return run(backend, far); },
                    {.tolerance = 3e-5});
}

TEST_CASE("norms give a row the same bits in every batch") {
  for (Norm norm : {Norm::kRms, Norm::kLayer}) {
    const Case whole{norm, 67, 203};
    const Data data(whole);
    for_each_backend([&](Backend& backend, const std::string& name) {
      const std::vector<float> together = run(backend, whole, data);
      for (int64_t size : {1, 2, 5, 16}) {
        for (int64_t begin : {int64_t{0}, int64_t{21}, 67 - size}) {
          Case part = whole;
          part.tokens = size;
          Data part_data = data;
          part_data.x = rows_of(data.x, whole.hidden, begin, begin + size);
          check_same_bits(str_cat(name, ": rows ", begin, " + ", size, " of ", whole.name()),
                          run(backend, part, part_data),
                          rows_of(together, whole.hidden, begin, begin + size));
        }
      }
    });
  }
}

}  // namespace
}  // namespace octavo::test
