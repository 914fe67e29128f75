#include "backend/row_logprobs.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "backend/sample_row.h"

namespace octavo {
namespace {

using Ids = std::vector<int32_t>;
constexpr float kInf = std::numeric_limits<float>::infinity();

// Values with ties, so that ranks and orders are put to the test.
std::vector<float> random_values(uint32_t seed, int32_t vocab) {
  std::mt19937 engine(seed);
  std::vector<float> values;
  for (int32_t i = 0; i < vocab; ++i) {
    values.push_back(std::round(std::normal_distribution<float>(0, 8)(engine)) / 2);
  }
  return values;
}

double log_softmax(const std::vector<float>& values, int32_t id) {
  double sum = 0;
  const double max = *std::max_element(values.begin(), values.end());
  for (float value : values) sum += std::exp(value - max);
  return values[static_cast<size_t>(id)] - max - std::log(sum);
}

int32_t rank(const std::vector<float>& values, int32_t id) {
  int32_t count = 0;
  for (float value : values) count += value >= values[static_cast<size_t>(id)];
  return count;
}

Ids order(const std::vector<float>& values) {
  Ids ids(values.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
    return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)];
  });
  return ids;
}

void check(const std::vector<float>& values, const TokenLogprobs& got, const Ids& ids) {
  REQUIRE(got.token_ids == ids);
  REQUIRE(got.logprobs.size() == ids.size());
  REQUIRE(got.ranks.size() == ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    CHECK(got.logprobs[i] == doctest::Approx(log_softmax(values, ids[i])).epsilon(1e-6));
    CHECK(got.ranks[i] == rank(values, ids[i]));
  }
}

TEST_CASE("the drawn token comes first, then the most probable ones, ties by the lower id") {
  for (uint32_t seed = 0; seed < 400; ++seed) {
    CAPTURE(seed);
    const int32_t vocab = 1 + static_cast<int32_t>(seed % 61);
    const std::vector<float> values = random_values(seed, vocab);
    const int32_t token = static_cast<int32_t>(seed * 7) % vocab;
    for (int32_t top : {0, 1, 5, 100, -1}) {
      Ids expected = {token};
      const Ids best = order(values);
      const int32_t count = top < 0 ? vocab : std::min(top, vocab);
      expected.insert(expected.end(), best.begin(), best.begin() + count);
      check(values, row_logprobs(values.data(), vocab, token, {.wanted = true, .top = top}),
            expected);
    }
  }
}

TEST_CASE("ids that are asked for come in their order") {
  const std::vector<float> values = random_values(1, 40);
  const Ids ids = {7, 3, 39, 3};
  check(values, row_logprobs(values.data(), 40, 5, {.wanted = true, .top = 9, .ids = ids}),
        {5, 7, 3, 39, 3});
}

TEST_CASE("logits are given as they are") {
  const std::vector<float> values = random_values(2, 40);
  const TokenLogprobs got = row_logprobs(values.data(), 40, 5, {.wanted = true, .logits = true});
  CHECK(got.logprobs == std::vector<float>{values[5]});
}

TEST_CASE("raw values are the model's, processed ones what was drawn from") {
  const std::vector<float> logits = {3, 2, 1, 0, -1};
  const Ids banned = {0};
  SampleRow row{.temperature = 0.5f, .top_k = 2, .seed = 4, .edits = {.banned = banned}};
  row.logprobs = {.wanted = true, .top = 5};
  TokenLogprobs got;
  std::vector<float> work = logits;
  const int32_t token = sample_row(work.data(), 5, row, &got);
  CHECK((token == 1 || token == 2));
  check(logits, got, {token, 0, 1, 2, 3, 4});

  row.logprobs.processed = true;
  work = logits;
  CHECK(sample_row(work.data(), 5, row, &got) == token);
  CHECK(got.token_ids == Ids{token, 1, 2, 0, 3, 4});
  const double first = -std::log1p(std::exp(-2.0));  // logits 4 and 2 after the temperature
  CHECK(got.logprobs[1] == doctest::Approx(first));
  CHECK(got.logprobs[2] == doctest::Approx(first - 2));
  CHECK(got.logprobs[3] == -kInf);
  row.logprobs.logits = true;
  work = logits;
  sample_row(work.data(), 5, row, &got);
  CHECK(got.logprobs[1] == 4.0f);
}

TEST_CASE("asking changes no token") {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    const std::vector<float> values = random_values(seed, 50);
    SampleRow row{.temperature = 1.3f, .top_p = 0.9f, .seed = seed};
    std::vector<float> work = values;
    const int32_t token = sample_row(work.data(), 50, row);
    TokenLogprobs got;
    for (bool processed : {false, true}) {
      row.logprobs = {.wanted = true, .processed = processed, .top = 3};
      work = values;
      CHECK(sample_row(work.data(), 50, row, &got) == token);
    }
  }
}

}  // namespace
}  // namespace octavo
