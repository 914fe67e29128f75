// Weights that stay integers: their linear, against ref's on the decoded matrix.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/check.h"
#include "ops/backends.h"
#include "ops/compare.h"
#include "ops/device_matrix.h"
#include "ops/random.h"
#include "ops/weights.h"
#include "quant/decode.h"

namespace octavo::test {
namespace {

constexpr Scheme kSchemes[] = {Scheme::kQ4_0, Scheme::kQ4_1, Scheme::kQ5_0, Scheme::kQ5_1,
                               Scheme::kQ8_0, Scheme::kQ4_K, Scheme::kQ5_K, Scheme::kQ6_K};
WeightTarget keep_integers(DType dtype = DType::kFloat32) { return {dtype, IntegerWeights::kKeep}; }

bool is_k(Scheme scheme) { return scheme >= Scheme::kQ4_K; }

// Random numbers and moderate scales, also where the second scale or Q6_K's only one is.
StoredMatrix random_integers(Scheme scheme, int64_t rows, int64_t cols, uint64_t seed) {
  Random random(seed);
  StoredMatrix stored = random_blocks(scheme, rows, cols, random);
  if (!is_k(scheme)) return stored;
  const SchemeInfo& info = scheme_info(scheme);
  const int64_t at = scheme == Scheme::kQ6_K ? 208 : 0, halves = scheme == Scheme::kQ6_K ? 1 : 2;
  for (int64_t block = 0; block < rows * cols / info.block_elements; ++block) {
    for (int64_t i = 0; i < halves; ++i) {
      const uint16_t half = float_to_float16(static_cast<float>(random.uniform() * 1e-3));
      std::memcpy(stored.bytes.data() + 1 + block * info.block_bytes + at + 2 * i, &half, 2);
    }
  }
  return stored;
}

struct Shape {
  int64_t tokens, in, out;
  std::string name() const { return str_cat(tokens, "x", in, "x", out); }
};

// Rows that blocks of 8 bits hold exactly: integers of which one is 127, times a power of two.
std::vector<float> exact_rows(int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> x(static_cast<size_t>(count));
  for (int64_t block = 0; block < count / 32; ++block) {
    const auto scale = static_cast<float>(std::exp2(random.below(5) - 9));
    for (int64_t i = 0; i < 32; ++i) {
      const int32_t number = i == block % 32 ? 127 : random.below(255) - 127;
      x[static_cast<size_t>(block * 32 + i)] = scale * static_cast<float>(number);
    }
  }
  return x;
}

std::vector<float> linear(Backend& backend, const PackedWeight& weight, const std::vector<float>& x,
                          Layout layout = Layout::kDense) {
  const auto tokens = static_cast<int64_t>(x.size()) / weight.in_features();
  const DeviceMatrix input(backend, tokens, weight.in_features(), x, layout);
  const DeviceMatrix out(backend, tokens, weight.out_features(), beside(layout));
  backend.linear({.x = input.view, .weight = &weight, .out = out.view});
  return out.download();
}

const std::vector<Shape> kShapes = {{1, 256, 1},    {1, 256, 32},   {2, 256, 33},  {3, 512, 70},
                                    {4, 256, 64},   {5, 768, 130},  {6, 256, 96},  {7, 256, 31},
                                    {12, 512, 65},  {13, 256, 40},  {31, 768, 64}, {101, 512, 37},
                                    {1, 1536, 576}, {300, 256, 33}, {21, 32, 40},  {9, 352, 65}};

TEST_CASE("integers: linear of exact rows is that of the decoded weight") {
  for (const Scheme scheme : kSchemes) {
    for (const Shape& shape : kShapes) {
      if (is_k(scheme) && shape.in % 256 != 0) continue;
      const StoredMatrix matrix = random_integers(scheme, shape.out, shape.in, 5);
      const std::vector<float> x = exact_rows(shape.tokens * shape.in, 9);
      const std::vector<float> expected = linear(ref(), *matrix.pack(ref(), DType::kFloat32), x);
      // An output may cancel, but not all of a row's.
      for (const NamedBackend& other : other_backends()) {
        const auto weight = matrix.pack(*other.backend, keep_integers());
        check_close(str_cat(other.name, ": ", scheme_info(scheme).name, " ", shape.name()),
                    linear(*other.backend, *weight, x, Layout::kStrided), expected, shape.out,
                    kTolerance, 0.05);
      }
    }
  }
}

// The most that rounding x to 8 bits can change: half a step of each block times its weights.
std::vector<double> rounding_bounds(const std::vector<float>& weight, const std::vector<float>& x,
                                    int64_t in, int64_t out) {
  std::vector<double> bounds;
  for (size_t row = 0; row < x.size() / static_cast<size_t>(in); ++row) {
    for (int64_t o = 0; o < out; ++o) {
      double bound = 0;
      for (int64_t block = 0; block < in; block += 32) {
        double most = 0, weights = 0;
        for (int64_t i = block; i < block + 32; ++i) {
          most = std::max(most, std::fabs(static_cast<double>(x[row * in + i])));
          weights += std::fabs(static_cast<double>(weight[o * in + i]));
        }
        bound += most / 127 * 0.5 * weights;
      }
      bounds.push_back(bound);
    }
  }
  return bounds;
}

TEST_CASE("integers: linear of any rows is within the rounding of x") {
  for (const Scheme scheme : kSchemes) {
    const StoredMatrix matrix = random_integers(scheme, 130, 512, 6);
    const std::vector<float> x = Random(3).normals(9 * 512);
    const auto decoded = matrix.pack(ref(), DType::kFloat32);
    const std::vector<float> expected = linear(ref(), *decoded, x);
    const std::vector<double> bounds = rounding_bounds(read_back(ref(), *decoded), x, 512, 130);
    for (const NamedBackend& other : other_backends()) {
      const auto weight = matrix.pack(*other.backend, keep_integers());
      const std::vector<float> actual = linear(*other.backend, *weight, x);
      int64_t outside = 0;
      for (size_t i = 0; i < expected.size(); ++i) {
        const double error = std::fabs(static_cast<double>(actual[i]) - expected[i]);
        outside += error <= bounds[i] * 1.001 ? 0 : 1;
      }
      CHECK_MESSAGE(outside == 0, other.name, ": ", scheme_info(scheme).name);
      check_cosine(other.name + ": cosine", actual, expected);
    }
  }
}

TEST_CASE("integers: instruction sets with fused multiply-add have the same bits") {
  if (skipped_on_cuda("there is one set of kernels")) return;
  for (const Scheme scheme : kSchemes) {
    const StoredMatrix matrix = random_integers(scheme, 100, 768, 7);
    for (const int64_t rows : {1, 4, 8, 21}) {
      const std::vector<float> x = Random(4).normals(rows * 768);
      std::vector<float> first;
      for (const NamedBackend& other : other_backends()) {
        if (other.isa == "cpu/generic") continue;
        const std::vector<float> actual =
            linear(*other.backend, *matrix.pack(*other.backend, keep_integers()), x);
        if (first.empty()) first = actual;
        check_same_bits(str_cat(other.name, ": ", scheme_info(scheme).name), actual, first);
      }
    }
  }
}

// Rows of x alone, and beside others.
void check_batches(const std::string& what, Backend& backend, const PackedWeight& weight) {
  constexpr int64_t kRows = 70;
  const int64_t in = weight.in_features(), out = weight.out_features();
  const std::vector<float> x = Random(5).normals(kRows * in);
  const std::vector<float> together = linear(backend, weight, x);
  for (const int64_t size : {1, 2, 3, 4, 5, 6, 7, 12, 13, 15, 16, 17, 31, 32, 33, 48, 65, 69}) {
    for (const int64_t begin : {int64_t{0}, (kRows - size) / 2, kRows - size}) {
      check_same_bits(str_cat(what, " rows ", begin, " + ", size),
                      linear(backend, weight, rows_of(x, in, begin, begin + size)),
                      rows_of(together, out, begin, begin + size));
    }
  }
}

TEST_CASE("integers: a row has the same bits in every batch") {
  if (skipped_on_cuda(kBatchInvariance)) return;
  for (const Scheme scheme : kSchemes) {
    // Also blocks that do not fill the last run of those that are unpacked together.
    const StoredMatrix matrix = random_integers(scheme, 70, is_k(scheme) ? 512 : 352, 8);
    for (const NamedBackend& other : other_backends()) {
      check_batches(str_cat(other.name, ": ", scheme_info(scheme).name), *other.backend,
                    *matrix.pack(*other.backend, keep_integers()));
    }
  }
  const StoredMatrix floats(70, 352, Random(14).normals(70 * 352, 0.1));
  for (const NamedBackend& other : other_backends()) {
    check_batches(other.name + ": int8", *other.backend,
                  *floats.pack(*other.backend, {DType::kFloat32, IntegerWeights::kInt8}));
  }
}

TEST_CASE("integers: a NaN or an infinity stays in its own row") {
  for (const float bad : {NAN, INFINITY}) {
    const StoredMatrix matrix = random_integers(Scheme::kQ4_0, 45, 64, 8);
    const std::vector<float> clean = Random(6).normals(9 * 64);
    std::vector<float> dirty = clean;
    dirty[4 * 64 + 33] = bad;
    for (const NamedBackend& other : other_backends()) {
      const auto weight = matrix.pack(*other.backend, keep_integers());
      std::vector<float> expected = linear(*other.backend, *weight, clean);
      std::vector<float> actual = linear(*other.backend, *weight, dirty);
      for (int64_t i = 4 * 45; i < 5 * 45; ++i) {
        // Decoded weights make an infinity of an infinity.
        const bool broken = on_cuda() ? !std::isfinite(actual[i]) : std::isnan(actual[i]);
        CHECK_MESSAGE(broken, other.name, ": element ", i);
        expected[i] = actual[i] = 0;
      }
      check_same_bits(other.name, actual, expected);
    }
  }
}

TEST_CASE("integers: packed rows read back as they decode") {
  for (const Scheme scheme : kSchemes) {
    const StoredMatrix matrix = random_integers(scheme, 70, 512, 11);
    const std::vector<float> expected = read_back(ref(), *matrix.pack(ref(), DType::kFloat32));
    for (const NamedBackend& other : other_backends()) {
      const auto weight = matrix.pack(*other.backend, keep_integers());
      // Whole panels, and never more than a byte and the scales for a number.
      if (!skipped_on_cuda(kKeptIntegers)) {
        CHECK(weight->bytes() < static_cast<size_t>(96 * 512 * 9 / 8));
      }
      check_close(str_cat(other.name, ": ", scheme_info(scheme).name),
                  read_back(*other.backend, *weight), expected, 512, 1e-6);
    }
  }
}

// Parts of one form each; a permutation; and rows that fill no panel, which become floating.
TEST_CASE("integers: segments of several forms in one weight") {
  const std::vector<int32_t> order = Random(2).permutation(64);
  const StoredMatrix a = random_integers(Scheme::kQ4_0, 64, 256, 1);
  const StoredMatrix b = random_integers(Scheme::kQ6_K, 32, 256, 2);
  const StoredMatrix c = random_integers(Scheme::kQ4_0, 37, 256, 3);
  const StoredMatrix d(21, 256, Random(4).normals(21 * 256, 0.1));
  const std::vector<float> x = exact_rows(5 * 256, 9);
  const std::vector<std::vector<WeightSegment>> weights = {
      {a.segment(order), b.segment(), c.segment()},
      {b.segment(), a.segment(order), d.segment()},
      {c.segment(), b.segment(), a.segment(order)},
      {d.segment(), c.segment()}};
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto expected_weight = ref().pack(weights[i], DType::kFloat32);
    const std::vector<float> expected = linear(ref(), *expected_weight, x);
    for (const NamedBackend& other : other_backends()) {
      const auto weight = other.backend->pack(weights[i], keep_integers());
      check_close(str_cat(other.name, ": weight ", i), linear(*other.backend, *weight, x), expected,
                  weight->out_features(), kTolerance, 0.05);
    }
  }
}

TEST_CASE("integers: int8 on load has a scale for each output feature") {
  if (skipped_on_cuda(kKeptIntegers)) return;
  constexpr int64_t kIn = 96, kOut = 70;
  const StoredMatrix matrix(kOut, kIn, Random(12).normals(kOut * kIn, 0.1));
  std::vector<float> expected = read_back(ref(), *matrix.pack(ref(), DType::kFloat32));
  for (int64_t row = 0; row < kOut; ++row) {
    float most = 0;
    for (int64_t i = 0; i < kIn; ++i) most = std::max(most, std::fabs(expected[row * kIn + i]));
    for (int64_t i = 0; i < kIn; ++i) {
      float& value = expected[row * kIn + i];
      value = std::nearbyint(value * (127.0f / most)) * (most / 127.0f);
    }
  }
  const StoredMatrix rounded_matrix(kOut, kIn, expected);
  const std::vector<float> x = exact_rows(9 * kIn, 3);
  const std::vector<float> product = linear(ref(), *rounded_matrix.pack(ref(), DType::kFloat32), x);
  for (const NamedBackend& other : other_backends()) {
    const auto weight = matrix.pack(*other.backend, {DType::kFloat32, IntegerWeights::kInt8});
    check_close(other.name + ": read back", read_back(*other.backend, *weight), expected, kIn,
                1e-6);
    check_close(other.name, linear(*other.backend, *weight, x), product, kOut, kTolerance, 0.05);
  }
  // A row that fills no block stays floating.
  const StoredMatrix odd(kOut, 40, Random(13).normals(kOut * 40));
  for (const NamedBackend& other : other_backends()) {
    const auto weight = odd.pack(*other.backend, {DType::kFloat32, IntegerWeights::kInt8});
    check_same_bits(other.name, read_back(*other.backend, *weight),
                    read_back(ref(), *odd.pack(ref(), DType::kFloat32)));
  }
}

}  // namespace
}  // namespace octavo::test
