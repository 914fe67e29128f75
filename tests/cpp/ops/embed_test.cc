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

namespace octavo::test {
namespace {

struct Case {
  int64_t tokens, hidden;
  DType dtype;
  bool accumulate;
  int32_t offset = 0;
  Layout layout = Layout::kDense;

  std::string name() const {
    return str_cat("embed ", tokens, "x", hidden, " ", dtype_name(dtype), " accumulate ",
                   accumulate, " offset ", offset, " layout ", static_cast<int>(layout));
  }
};

constexpr int64_t kVocab = 41;

struct Data {
  explicit Data(const Case& c) {
    Random random(static_cast<uint64_t>(c.tokens * 1000 + c.hidden));
    table = random.normals(kVocab * c.hidden);
    before = rounded(random.normals(c.tokens * c.hidden), input_dtype(c.dtype));
    ids = random.integers_below(c.tokens, kVocab - c.offset);
    if (c.tokens > 1) ids.front() = -c.offset, ids.back() = kVocab - 1 - c.offset;
  }
  std::vector<float> table;   // [vocab, hidden]
  std::vector<float> before;  // [tokens, hidden]
  std::vector<int32_t> ids;   // [tokens]
};

std::vector<float> run(Backend& backend, const Case& c) {
  const Data data(c);
  const auto table = StoredMatrix(kVocab, c.hidden, data.table).pack(backend, c.dtype);
  const DeviceVector<int32_t> ids(backend, data.ids);
  DeviceMatrix out(backend, c.tokens, c.hidden, c.layout, backend.activation_dtype(c.dtype));
  if (c.accumulate) out.upload(data.before);
  backend.embed({.ids = ids.view,
                 .table = table.get(),
                 .offset = c.offset,
                 .accumulate = c.accumulate,
                 .out = out.view});
  return out.download();
}

// A copy or one float32 addition: the same bits everywhere, when it is rounded as the activations
// are.
std::vector<float> by_formula(const Case& c) {
  const Data data(c);
  const std::vector<float> table = rounded(data.table, c.dtype);
  std::vector<float> out = data.before;
  for (int64_t i = 0; i < c.tokens * c.hidden; ++i) {
    const int64_t row = data.ids[i / c.hidden] + c.offset;
    const float value = table[row * c.hidden + i % c.hidden];
    out[i] = c.accumulate ? out[i] + value : value;
  }
  return out;
}

TEST_CASE("embed is a copy of the table's rows, or adds them") {
  for (DType dtype : kFloatingDTypes) {
    for (bool accumulate : {false, true}) {
      std::vector<Case> cases;
      for (int64_t tokens : kTokens) cases.push_back({tokens, 33, dtype, accumulate});
      for (int64_t width : kWidths) cases.push_back({3, width, dtype, accumulate});
      cases.push_back({17, 20, dtype, accumulate, 2, Layout::kStrided});  // OPT's positions
      cases.push_back({17, 64, dtype, accumulate, 0, Layout::kStrided});
      for (const Case& c : cases) {
        const std::vector<float> expected = by_formula(c);
        for_each_backend([&](Backend& backend, const std::string& name) {
          check_same_bits(name + ": " + c.name(), run(backend, c),
                          rounded(expected, backend.activation_dtype(dtype)));
        });
      }
    }
  }
}

TEST_CASE("ref: embed refuses an id out of the table") {
  const auto table = StoredMatrix(2, 1, {1, 2}).pack(ref(), DType::kFloat32);
  const DeviceMatrix out(ref(), 1, 1);
  for (int32_t id : {-1, 2}) {
    const DeviceVector<int32_t> ids(ref(), {id});
    const EmbedArgs args{.ids = ids.view, .table = table.get(), .out = out.view};
    CHECK_THROWS_AS(ref().embed(args), InternalError);
  }
}

}  // namespace
}  // namespace octavo::test
