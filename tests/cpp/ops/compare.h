// How results are compared: with a bound on the largest error of a row, relative to the row's root
// mean square and to the element; by cosine; or bit by bit.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "ops/backends.h"

namespace octavo::test {

// Float32 arithmetic in any order on float32 activations.
inline constexpr double kTolerance = 1e-5;

// What a result in `dtype` may err more, in ulps of it: rounded once, an element errs by half an
// ulp of its own size, and each number that it is made of by half an ulp of the row's.
inline double ulps(DType dtype, double count) {
  if (dtype == DType::kBFloat16) return count * 0x1p-7;
  return dtype == DType::kFloat16 ? count * 0x1p-10 : 0.0;
}

inline double root_mean_square(const float* row, int64_t cols) {
  double sum = 0;
  for (int64_t i = 0; i < cols; ++i) sum += static_cast<double>(row[i]) * row[i];
  return std::sqrt(sum / static_cast<double>(cols));
}

// The bound is `tolerance` of the row's root mean square and `of_element` of the element. `floor`
// is the least scale of a row: what its elements are before they cancel, and 0 where they do not.
// NaN is never close.
inline void check_close(const std::string& what, const std::vector<float>& actual,
                        const std::vector<float>& expected, int64_t cols,
                        double tolerance = kTolerance, double floor = 0.0,
                        double of_element = 0.0) {
  REQUIRE_MESSAGE(actual.size() == expected.size(), what);
  const auto size = static_cast<int64_t>(expected.size());
  double worst = 0, row_bound = 0;  // the largest error over its bound
  int64_t worst_index = 0;
  for (int64_t i = 0; i < size; ++i) {
    if (i % cols == 0) {
      row_bound = tolerance * std::max(root_mean_square(expected.data() + i, cols), floor);
    }
    const double bound = row_bound + of_element * std::fabs(static_cast<double>(expected[i]));
    const double error = std::fabs(static_cast<double>(actual[i]) - expected[i]);
    const double ratio = error == 0 ? 0 : error / bound;
    if (ratio <= worst) continue;
    worst = std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio;
    worst_index = i;
  }
  CHECK_MESSAGE(worst <= 1.0, what, ": element ", worst_index, " of rows of ", cols, " is ",
                actual[worst_index], ", expected ", expected[worst_index], "; ", worst,
                " times the bound");
}

inline void check_cosine(const std::string& what, const std::vector<float>& actual,
                         const std::vector<float>& expected) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    ab += static_cast<double>(actual[i]) * expected[i];
    aa += static_cast<double>(actual[i]) * actual[i];
    bb += static_cast<double>(expected[i]) * expected[i];
  }
  if (bb == 0) return;
  const double cosine = ab / std::sqrt(aa * bb);
  CHECK_MESSAGE(cosine >= 0.9999, what, ": cosine ", cosine);
}

template <typename T>
void check_same_bits(const std::string& what, const std::vector<T>& actual,
                     const std::vector<T>& expected) {
  REQUIRE_MESSAGE(actual.size() == expected.size(), what);
  size_t differing = 0, first = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::memcmp(&actual[i], &expected[i], sizeof(T)) == 0) continue;
    if (differing++ == 0) first = i;
  }
  CHECK_MESSAGE(differing == 0, what, ": ", differing, " of ", expected.size(),
                " differ, first element ", first, ": ", actual[first], ", expected ",
                expected[first]);
}

// Rows [begin, end) of a matrix of `cols` columns.
inline std::vector<float> rows_of(const std::vector<float>& values, int64_t cols, int64_t begin,
                                  int64_t end) {
  return {values.begin() + begin * cols, values.begin() + end * cols};
}

// Runs `run(backend)`, a matrix of `cols` columns, on every back end: each is close to ref, and the
// number of threads changes no bit.
struct Bounds {
  double tolerance = kTolerance;
  double floor = 0.0;
  double rounded = 0.0;           // the tolerance where rows are rounded to bfloat16
  DType dtype = DType::kFloat32;  // of the weights; of the activations, where they follow them
  double roundings = 1.0;         // to that dtype, one after another
};
template <typename Run>
void check_against_ref(const std::string& what, int64_t cols, Run run, const Bounds& bounds = {}) {
  if (other_backends().empty()) return;
  const std::vector<float> expected = run(ref());
  std::map<std::string, std::vector<float>> first_of_isa;
  for (const NamedBackend& other : other_backends()) {
    const std::string where = other.name + ": " + what;
    const std::vector<float> actual = run(*other.backend);
    const double ulp = ulps(other.backend->activation_dtype(bounds.dtype), bounds.roundings);
    check_close(where, actual, expected, cols,
                other.rounds_rows ? std::max(bounds.tolerance, bounds.rounded)
                                  : std::max(bounds.tolerance, ulp),
                bounds.floor, ulp);
    check_cosine(where, actual, expected);
    const auto [first, is_first] = first_of_isa.emplace(other.isa, actual);
    if (!is_first) check_same_bits(where + ", against one thread", actual, first->second);
  }
}

// As check_against_ref, for words whose result is defined to the bit.
template <typename Run>
void check_same_as_ref(const std::string& what, Run run) {
  const auto expected = run(ref());
  for (const NamedBackend& other : other_backends()) {
    check_same_bits(other.name + ": " + what, run(*other.backend), expected);
  }
}

}  // namespace octavo::test
