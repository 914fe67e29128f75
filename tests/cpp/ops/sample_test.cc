#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/philox.h"
#include "ops/backends.h"
#include "ops/compare.h"
#include "ops/device_matrix.h"
#include "ops/random.h"

namespace octavo::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<int32_t> run(Backend& backend, int64_t vocab, const std::vector<float>& logits,
                         const std::vector<SampleRow>& rows, Layout layout = Layout::kDense) {
  const auto count = static_cast<int64_t>(rows.size());
  const DeviceMatrix device_logits(backend, count, vocab, logits, layout);
  const DeviceVector<int32_t> out(backend, std::vector<int32_t>(rows.size(), -77));
  backend.sample({.logits = device_logits.view, .rows = rows, .out = out.view});
  device_logits.download();  // checks its margins
  return download_vector<int32_t>(backend, out.view);
}

// The probabilities of the tokens that the stages keep, by sorting all of them.
std::vector<double> by_formula(std::vector<float> logits, const SampleRow& row) {
  for (int32_t id : row.edits.banned) logits[id] = -kInfinity;
  const auto vocab = static_cast<int32_t>(logits.size());
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> weights;
  for (float logit : logits) weights.push_back(std::exp((logit - largest) / row.temperature));
  for (double& weight : weights) weight = weight < row.min_p ? 0 : weight;
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (row.top_k > 0 && row.top_k < vocab) {
    const float least = logits[order[row.top_k - 1]];
    for (int32_t id = 0; id < vocab; ++id) weights[id] = logits[id] < least ? 0 : weights[id];
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double before = 0;  // the probability of the tokens that rank above
  for (int32_t id : order) {
    const double probability = weights[id] / total;
    if (before >= row.top_p) weights[id] = 0;
    before += probability;
  }
  const double kept = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight /= kept;
  return weights;
}

// The first id whose cumulative probability exceeds the draw.
int32_t inverse(const std::vector<double>& probabilities, double uniform) {
  double sum = 0;
  for (size_t id = 0; id < probabilities.size(); ++id) {
    sum += probabilities[id];
    if (sum > uniform) return static_cast<int32_t>(id);
  }
  return -1;
}

SampleRow random_row(Random& random, uint32_t position) {
  SampleRow row;
  row.temperature = static_cast<float>(0.2 + 1.5 * random.uniform());
  if (random.below(2) == 0) row.top_p = static_cast<float>(0.05 + 0.94 * random.uniform());
  if (random.below(2) == 0) row.min_p = static_cast<float>(0.3 * random.uniform());
  if (random.below(2) == 0) row.top_k = 1 + random.below(30);
  row.seed = random.bits();
  row.sample_index = static_cast<uint32_t>(random.below(5));
  row.position = position;
  return row;
}

TEST_CASE("greedy takes the lowest id among the largest logits") {
  const std::vector<float> logits = {1, 5,     5, 2, 5, -3,         -1, -2, -1, -9,
                                     0, -0.0f, 0, 0, 0, -kInfinity, 7,  6,  7,  -kInfinity};
  const std::vector<SampleRow> rows(4);
  const std::vector<int32_t> expected = {1, 1, 0, 1};
  for_each_backend([&](Backend& backend, const std::string& name) {
    check_same_bits(name + ": greedy", run(backend, 5, logits, rows), expected);
  });
}

TEST_CASE("greedy reads every place of a long row") {
  constexpr int64_t kVocab = 1037;
  const std::vector<float> base = Random(4).normals(kVocab);
  for_each_backend([&](Backend& backend, const std::string& name) {
    for (Layout layout : {Layout::kDense, Layout::kStrided}) {
      std::vector<float> logits;
      std::vector<int32_t> expected;
      for (int32_t id = 0; id < kVocab; id += 7) {
        std::vector<float> row = base;
        row[id] = 100;
        logits.insert(logits.end(), row.begin(), row.end());
        expected.push_back(id);
      }
      const std::vector<SampleRow> rows(expected.size());
      check_same_bits(name + ": greedy", run(backend, kVocab, logits, rows, layout), expected);
    }
  });
}

TEST_CASE("a NaN, or nothing finite, gives -1 to its row alone") {
  const std::vector<float> logits = {0,          kNaN,       9,          kNaN, kNaN, kNaN,
                                     -kInfinity, -kInfinity, -kInfinity, 1,    3,    2};
  for_each_backend([&](Backend& backend, const std::string& name) {
    for (float temperature : {0.0f, 1.0f}) {
      const std::vector<SampleRow> rows(4, {.temperature = temperature, .top_k = 1});
      const std::vector<int32_t> expected = {-1, -1, -1, 1};
      CHECK_MESSAGE(run(backend, 3, logits, rows) == expected, name);
    }
  });
}

TEST_CASE("banned ids are never chosen") {
  const std::vector<int32_t> best = {2}, all = {0, 1, 2, 3}, but_one = {0, 2, 3};
  const std::vector<float> row = {0, 3, 9, 1};
  for_each_backend([&](Backend& backend, const std::string& name) {
    for (float temperature : {0.0f, 1.0f}) {
      const auto banning = [&](const std::vector<int32_t>& banned) {
        const SampleRow how{.temperature = temperature, .top_k = 1, .edits = {.banned = banned}};
        return run(backend, 4, row, {how}).front();
      };
      CHECK_MESSAGE(banning({}) == 2, name);
      CHECK_MESSAGE(banning(best) == 1, name);
      CHECK_MESSAGE(banning(but_one) == 1, name);
      CHECK_MESSAGE(banning(all) == -1, name);
    }
  });
}

TEST_CASE("no rows are sampled without harm") {
  for_each_backend(
      [&](Backend& backend, const std::string&) { CHECK(run(backend, 8, {}, {}).empty()); });
}

TEST_CASE("sampling inverts the distribution that the stages keep") {
  Random random(17);
  for (int64_t vocab : {1, 2, 17, 64, 1000}) {
    std::vector<float> logits;
    std::vector<SampleRow> rows;
    std::vector<int32_t> expected;
    std::vector<std::vector<int32_t>> banned(200);
    for (uint32_t position = 0; position < banned.size(); ++position) {
      const std::vector<float> row = random.normals(vocab, 2.0);
      SampleRow how = random_row(random, position);
      if (vocab > 2 && random.below(3) == 0) {
        banned[position] = random.integers_below(2, vocab);
        how.edits.banned = banned[position];
      }
      logits.insert(logits.end(), row.begin(), row.end());
      rows.push_back(how);
      const double uniform = philox_uniform(how.seed, how.sample_index, how.position);
      expected.push_back(inverse(by_formula(row, how), uniform));
    }
    for_each_backend([&](Backend& backend, const std::string& name) {
      check_same_bits(str_cat(name, ": vocab ", vocab), run(backend, vocab, logits, rows),
                      expected);
    });
  }
}

TEST_CASE("ties with the k-th logit are kept") {
  const std::vector<float> row = {1, 2, 1, 3, 1, 0};  // top_k 3 keeps ids 0 to 4
  std::vector<float> logits;
  std::vector<SampleRow> rows;
  for (uint32_t position = 0; position < 2000; ++position) {
    logits.insert(logits.end(), row.begin(), row.end());
    rows.push_back({.temperature = 1.0f, .top_k = 3, .seed = 1, .position = position});
  }
  for_each_backend([&](Backend& backend, const std::string& name) {
    std::vector<int> counts(6);
    for (int32_t id : run(backend, 6, logits, rows)) ++counts[id];
    for (int id : {0, 1, 2, 3, 4}) CHECK_MESSAGE(counts[id] > 0, name, ": id ", id);
    CHECK_MESSAGE(counts[5] == 0, name);
  });
}

TEST_CASE("draws follow the distribution") {
  constexpr int kDraws = 20000;
  const std::vector<float> row = {0.0f, 1.0f, 2.0f, -1.0f, 1.5f, -kInfinity, 0.5f};
  std::vector<float> logits;
  std::vector<SampleRow> rows;
  for (uint32_t position = 0; position < kDraws; ++position) {
    logits.insert(logits.end(), row.begin(), row.end());
    rows.push_back({.temperature = 0.8f, .seed = 42, .position = position});
  }
  const std::vector<double> probabilities = by_formula(row, rows[0]);
  for_each_backend([&](Backend& backend, const std::string& name) {
    std::vector<double> counts(row.size());
    for (int32_t id : run(backend, static_cast<int64_t>(row.size()), logits, rows)) ++counts[id];
    CHECK_MESSAGE(counts[5] == 0, name);
    double chi_squared = 0;
    for (size_t id = 0; id < row.size(); ++id) {
      const double expected = kDraws * probabilities[id];
      if (expected > 0) chi_squared += (counts[id] - expected) * (counts[id] - expected) / expected;
    }
    CHECK_MESSAGE(chi_squared < 20.5, name);  // 5 degrees of freedom: once in a thousand
  });
}

TEST_CASE("a row's draw depends on its own key alone") {
  const std::vector<float> row = Random(9).normals(300);
  const SampleRow how{.temperature = 1.0f, .seed = 5, .sample_index = 2, .position = 30};
  for_each_backend([&](Backend& backend, const std::string& name) {
    const int32_t alone = run(backend, 300, row, {how})[0];
    std::vector<float> logits;
    std::vector<SampleRow> rows;
    for (uint32_t i = 0; i < 64; ++i) {
      logits.insert(logits.end(), row.begin(), row.end());
      rows.push_back(how);
      if (i != 50) rows.back().position = 31 + i;
    }
    CHECK_MESSAGE(run(backend, 300, logits, rows)[50] == alone, name);
  });
}

}  // namespace
}  // namespace octavo::test
