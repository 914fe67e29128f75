#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "backend/sample_row.h"
#include "base/philox.h"

namespace octavo {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

int32_t sample(std::vector<float> logits, const SampleRow& row) {
  return sample_row(logits.data(), static_cast<int64_t>(logits.size()), row);
}

SampleRow make_row(float temperature, uint32_t position = 0) {
  SampleRow row;
  row.temperature = temperature;
  row.seed = 17;
  row.position = position;
  return row;
}

// The probabilities that the definition gives, stage by stage, in double and with full sorts.
std::vector<double> plain_probabilities(std::vector<float> logits, const SampleRow& row) {
  const size_t vocab = logits.size();
  for (int32_t id : row.edits.banned) logits[static_cast<size_t>(id)] = -kInf;
  const float max = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p(vocab);
  for (size_t i = 0; i < vocab; ++i) {
    p[i] = std::exp((static_cast<double>(logits[i]) - max) / static_cast<double>(row.temperature));
    if (p[i] < static_cast<double>(row.min_p)) p[i] = 0.0;
  }
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < vocab) {
    std::vector<float> sorted = logits;
    std::sort(sorted.begin(), sorted.end(), std::greater<float>());
    const float threshold = sorted[static_cast<size_t>(row.top_k - 1)];
    for (size_t i = 0; i < vocab; ++i) p[i] = logits[i] >= threshold ? p[i] : 0.0;
  }
  if (row.top_p < 1.0f) {
    std::vector<size_t> order(vocab);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
    const double total = std::accumulate(p.begin(), p.end(), 0.0);
    double sum = 0.0;
    for (size_t rank = 0; rank < vocab; ++rank) {
      if (rank > 0 && sum >= static_cast<double>(row.top_p) * total) p[order[rank]] = 0.0;
      sum += p[order[rank]];
    }
  }
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= total;
  return p;
}

// Whether `id` is where the plain distribution function crosses the draw, up to rounding.
bool is_inverse(const std::vector<double>& p, double uniform, int32_t id) {
  if (id < 0 || p[static_cast<size_t>(id)] == 0.0) return false;
  const double below = std::accumulate(p.begin(), p.begin() + id, 0.0);
  constexpr double kRounding = 1e-6;
  return uniform >= below - kRounding && uniform < below + p[static_cast<size_t>(id)] + kRounding;
}

TEST_CASE("philox gives the published draws") {
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) ==
        PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
}

TEST_CASE("greedy takes the lowest id among the largest") {
  CHECK(sample({1, 5, 3, 5}, make_row(0)) == 1);
  CHECK(sample({-kInf, -3, -kInf}, make_row(0)) == 1);
  CHECK(sample({7}, make_row(0)) == 0);
  std::vector<float> wide(1000, 0.0f);
  wide[777] = wide[999] = 1.0f;
  CHECK(sample(wide, make_row(0)) == 777);
}

TEST_CASE("NaN anywhere and nothing finite give -1") {
  for (const float temperature : {0.0f, 1.0f}) {
    for (const size_t size : {size_t{1}, size_t{5}, size_t{16}, size_t{100}}) {
      for (const size_t place : {size_t{0}, size / 2, size - 1}) {
        std::vector<float> logits(size, 1.0f);
        logits[place] = kNan;
        CHECK(sample(logits, make_row(temperature)) == -1);
      }
      CHECK(sample(std::vector<float>(size, -kInf), make_row(temperature)) == -1);
    }
    SampleRow row = make_row(temperature);
    const std::vector<int32_t> all = {0, 1, 2};
    row.edits.banned = all;
    CHECK(sample({1, 2, 3}, row) == -1);
    CHECK(sample({1, kNan, 3}, row) == -1);
  }
}

TEST_CASE("banned ids are never chosen") {
  const std::vector<int32_t> banned = {1, 3};
  SampleRow row = make_row(0);
  row.edits.banned = banned;
  CHECK(sample({1, 9, 2, 9}, row) == 2);
  row.temperature = 1.0f;
  for (row.position = 0; row.position < 500; ++row.position) {
    const int32_t id = sample({1, 9, 2, 9, 0}, row);
    CHECK(id != 1);
    CHECK(id != 3);
  }
}

TEST_CASE("an infinite logit wins") {
  for (uint32_t position = 0; position < 50; ++position) {
    CHECK(sample({1, kInf, 3}, make_row(1.0f, position)) == 1);
  }
}

TEST_CASE("top_k keeps ties with the k-th") {
  SampleRow row = make_row(100.0f);
  row.top_k = 2;
  std::vector<int> counts(6, 0);
  for (row.position = 0; row.position < 2000; ++row.position) {
    ++counts[static_cast<size_t>(sample({3, 1, 2, 2, 0, 2}, row))];
  }
  CHECK(counts[1] == 0);
  CHECK(counts[4] == 0);
  for (const size_t id : {0, 2, 3, 5}) CHECK(counts[id] > 300);
}

TEST_CASE("top_k of 1 is greedy") {
  SampleRow row = make_row(5.0f);
  row.top_k = 1;
  for (row.position = 0; row.position < 200; ++row.position) {
    CHECK(sample({0, 1, 1.5f, 1}, row) == 2);
  }
}

// The ids that are ever chosen.
std::vector<int32_t> support(const std::vector<float>& logits, SampleRow row, uint32_t draws) {
  std::vector<bool> seen(logits.size(), false);
  for (row.position = 0; row.position < draws; ++row.position) {
    seen[static_cast<size_t>(sample(logits, row))] = true;
  }
  std::vector<int32_t> ids;
  for (size_t i = 0; i < seen.size(); ++i) {
    if (seen[i]) ids.push_back(static_cast<int32_t>(i));
  }
  return ids;
}

TEST_CASE("top_p keeps the smallest set, ties by the lower id, at least one") {
  SampleRow row = make_row(1.0f);
  const std::vector<float> equal(10, 0.5f);
  for (int kept = 1; kept <= 10; ++kept) {
    row.top_p = static_cast<float>(kept) / 10.0f;
    const std::vector<int32_t> ids = support(equal, row, 600);
    CHECK(static_cast<int>(ids.size()) == kept);
    CHECK(ids.back() == kept - 1);
  }
  row.top_p = 1e-9f;
  CHECK(support({0, 3, 1, 3}, row, 100) == std::vector<int32_t>{1});
  row.top_p = 0.5f;  // probabilities 1/4, 1/2, 1/4
  CHECK(support({0, std::log(2.0f), 0}, row, 100) == std::vector<int32_t>{1});
  row.top_p = 0.51f;
  CHECK(support({0, std::log(2.0f), 0}, row, 300) == std::vector<int32_t>{0, 1});
}

TEST_CASE("top_p is of what min_p and top_k left") {
  SampleRow row = make_row(1.0f);
  row.top_k = 2;
  row.top_p = 0.6f;  // of 0.57 and 0.43, not of all four
  CHECK(support({1.0f, 0.7f, 0.6f, 0.5f}, row, 300) == std::vector<int32_t>{0, 1});
  row.top_p = 0.5f;
  CHECK(support({1.0f, 0.7f, 0.6f, 0.5f}, row, 300) == std::vector<int32_t>{0});
  row.top_k = 0;
  row.min_p = 0.7f;  // e^-0.3 = 0.741, e^-0.4 = 0.670
  row.top_p = 1.0f;
  CHECK(support({1.0f, 0.7f, 0.6f, 0.5f}, row, 300) == std::vector<int32_t>{0, 1});
}

TEST_CASE("min_p of 1 keeps only the largest, which may tie") {
  SampleRow row = make_row(1.0f);
  row.min_p = 1.0f;
  CHECK(support({2, 1, 2, 0}, row, 200) == std::vector<int32_t>{0, 2});
}

TEST_CASE("min_p works after the temperature") {
  SampleRow row = make_row(2.0f);
  row.min_p = 0.5f;  // e^(-1/2) = 0.61 is kept, e^(-2/2) = 0.37 is not
  CHECK(support({2, 1, 0}, row, 200) == std::vector<int32_t>{0, 1});
}

TEST_CASE("extreme temperatures") {
  for (uint32_t position = 0; position < 100; ++position) {
    CHECK(sample({1, 1.001f, 0}, make_row(1e-6f, position)) == 1);
    CHECK(sample({1, 1.001f, 0}, make_row(1e-44f, position)) == 1);
  }
  CHECK(support({1, 100, -100}, make_row(1e30f), 200) == std::vector<int32_t>{0, 1, 2});
}

TEST_CASE("agrees with the plain definition on random rows") {
  std::mt19937 random(123);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  const auto pick = [&](std::initializer_list<double> values) {
    return *(values.begin() + random() % values.size());
  };
  for (int trial = 0; trial < 400; ++trial) {
    std::vector<float> logits(1 + random() % 3000);
    for (float& logit : logits) logit = normal(random);
    if (trial % 3 == 0) {  // many ties
      for (float& logit : logits) logit = std::round(logit);
    }
    SampleRow row = make_row(static_cast<float>(pick({0.3, 1.0, 2.5})), 1 + random() % 9999);
    row.top_k = static_cast<int32_t>(pick({0, 1, 5, 40, 700, 4000}));
    row.top_p = static_cast<float>(pick({1.0, 0.95, 0.5, 0.01}));
    row.min_p = static_cast<float>(pick({0.0, 0.0, 0.02, 0.4}));
    const std::vector<double> p = plain_probabilities(logits, row);
    const double uniform = philox_uniform(row.seed, row.sample_index, row.position);
    CAPTURE(trial);
    CHECK(is_inverse(p, uniform, sample(logits, row)));
  }
}

TEST_CASE("draws follow the distribution: chi-square") {
  constexpr int kVocab = 40, kDraws = 40000;
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> logits(kVocab);
  for (float& logit : logits) logit = normal(random);
  SampleRow row = make_row(0.8f);
  row.top_k = 25;
  row.top_p = 0.9f;
  const std::vector<double> p = plain_probabilities(logits, row);
  std::vector<int> counts(kVocab, 0);
  for (int draw = 0; draw < kDraws; ++draw) {
    row.position = static_cast<uint32_t>(draw % 200);
    row.sample_index = static_cast<uint32_t>(draw / 200 % 20);
    row.seed = static_cast<uint64_t>(draw / 4000);
    ++counts[static_cast<size_t>(sample(logits, row))];
  }
  double statistic = 0.0;
  int degrees = -1;
  for (size_t i = 0; i < kVocab; ++i) {
    if (p[i] == 0.0) {
      CHECK(counts[i] == 0);
      continue;
    }
    const double expected = p[i] * kDraws;
    statistic += (counts[i] - expected) * (counts[i] - expected) / expected;
    ++degrees;
  }
  // The statistic's mean is `degrees` and its deviation sqrt(2 * degrees): five deviations.
  CHECK(degrees >= 10);
  CHECK(statistic < degrees + 5 * std::sqrt(2.0 * degrees));
}

TEST_CASE("seed, sample index and position each change the draw") {
  const std::vector<float> logits(100000, 0.0f);
  SampleRow row = make_row(1.0f, 3);
  const int32_t base = sample(logits, row);
  CHECK(sample(logits, row) == base);
  row.seed = 18;
  CHECK(sample(logits, row) != base);
  row.seed = 17;
  row.sample_index = 1;
  CHECK(sample(logits, row) != base);
  row.sample_index = 0;
  row.position = 4;
  CHECK(sample(logits, row) != base);
}

}  // namespace
}  // namespace octavo
