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

void check_gather(int64_t hidden, const std::vector<int32_t>& rows, Layout layout, DType dtype) {
  constexpr int64_t kRows = 23;
  const std::vector<float> x =
      rounded(Random(static_cast<uint64_t>(hidden)).normals(kRows * hidden), dtype);
  std::vector<float> expected;
  for (int32_t row : rows) {
    const std::vector<float> values = rows_of(x, hidden, row, row + 1);
    expected.insert(expected.end(), values.begin(), values.end());
  }
  for_each_backend([&](Backend& backend, const std::string& name) {
    const DType held = backend.activation_dtype(dtype);
    const DeviceMatrix source(backend, kRows, hidden, x, layout, held);
    const DeviceVector<int32_t> selected(backend, rows);
    const DeviceMatrix out(backend, static_cast<int64_t>(rows.size()), hidden, beside(layout),
                           held);
    backend.gather_rows({.x = source.view, .rows = selected.view, .out = out.view});
    check_same_bits(str_cat(name, ": gather ", rows.size(), "x", hidden), out.download(), expected);
  });
}

TEST_CASE("gather_rows copies the selected rows, in any order and more than once") {
  for (DType dtype : activation_dtypes()) {
    for (Layout layout : {Layout::kDense, Layout::kStrided}) {
      for (int64_t width : kWidths) check_gather(width, {22, 0, 7, 7, 6}, layout, dtype);
      check_gather(20, {}, layout, dtype);
      check_gather(20, {11}, layout, dtype);
      check_gather(64, Random(2).integers_below(300, 23), layout, dtype);
      check_gather(4096, Random(3).integers_below(256, 23), layout, dtype);
    }
  }
}

TEST_CASE("ref: gather_rows refuses a row out of range") {
  const DeviceMatrix x(ref(), 2, 3), out(ref(), 1, 3);
  for (int32_t row : {-1, 2}) {
    const DeviceVector<int32_t> rows(ref(), {row});
    const GatherRowsArgs args{.x = x.view, .rows = rows.view, .out = out.view};
    CHECK_THROWS_AS(ref().gather_rows(args), InternalError);
  }
}

}  // namespace
}  // namespace octavo::test
