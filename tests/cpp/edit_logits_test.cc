#include "backend/edit_logits.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

namespace octavo {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// The definition, id by id.
std::vector<float> edited(const std::vector<float>& logits, const LogitEdits& edits) {
  std::map<int32_t, float> bias;
  for (const TokenBias& b : edits.bias) bias[b.token_id] += b.bias;
  const std::set<int32_t> allowed(edits.allowed.begin(), edits.allowed.end());
  const std::set<int32_t> banned(edits.banned.begin(), edits.banned.end());
  const std::set<int32_t> bad(edits.bad.begin(), edits.bad.end());
  std::vector<float> result;
  for (int32_t id = 0; id < static_cast<int32_t>(logits.size()); ++id) {
    float logit = logits[static_cast<size_t>(id)] + (bias.contains(id) ? bias[id] : 0.0f);
    if (!allowed.empty() && !allowed.contains(id)) logit = -kInf;
    if (banned.contains(id)) logit = -kInf;
    if (!edits.mask.empty() && !(edits.mask[static_cast<size_t>(id) / 32] >> (id % 32) & 1)) {
      logit = -kInf;
    }
    for (const TokenCount& count : edits.counts) {
      if (count.token_id != id) continue;
      logit = logit > 0 ? logit / edits.repetition_penalty : logit * edits.repetition_penalty;
      if (count.in_output == 0) continue;
      logit -= edits.frequency_penalty * static_cast<float>(count.in_output);
      logit -= edits.presence_penalty;
    }
    result.push_back(bad.contains(id) ? -kInf : logit);
  }
  return result;
}

struct Random {
  std::mt19937 engine;
  int32_t below(int32_t limit) {
    return static_cast<int32_t>(engine() % static_cast<uint32_t>(limit));
  }
  float around(float scale) { return std::normal_distribution<float>(0, scale)(engine); }
  std::vector<int32_t> ids(int32_t most, int32_t vocab) {
    std::set<int32_t> ids;
    for (int32_t i = below(most + 1); i > 0; --i) ids.insert(below(vocab));
    return {ids.begin(), ids.end()};
  }
};

TEST_CASE("edits follow their definition") {
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    CAPTURE(seed);
    Random random{std::mt19937(seed)};
    const int32_t vocab = 1 + random.below(70);
    std::vector<float> logits;
    for (int32_t i = 0; i < vocab; ++i) logits.push_back(random.around(3));
    std::vector<TokenBias> bias;
    for (int32_t id : random.ids(5, vocab)) bias.push_back({id, random.around(20)});
    std::vector<TokenCount> counts;
    for (int32_t id : random.ids(9, vocab)) {
      const int32_t in_output = random.below(4);
      counts.push_back({id, in_output, in_output == 0 || random.below(2) == 0});
    }
    const std::vector<int32_t> allowed = random.ids(20, vocab), banned = random.ids(3, vocab),
                               bad = random.ids(3, vocab);
    std::vector<uint32_t> mask(static_cast<size_t>(vocab + 31) / 32);
    for (uint32_t& word : mask) word = random.below(4) == 0 ? ~0u : random.engine();
    if (random.below(3) == 0) mask.clear();
    const LogitEdits edits{.bias = bias,
                           .allowed = allowed,
                           .banned = banned,
                           .repetition_penalty = 0.5f + std::abs(random.around(1)),
                           .frequency_penalty = random.around(1),
                           .presence_penalty = random.around(1),
                           .counts = counts,
                           .bad = bad,
                           .mask = mask};
    const std::vector<float> expected = edited(logits, edits);
    edit_logits(logits.data(), vocab, edits);
    CHECK(logits == expected);
  }
}

TEST_CASE("the custom edit comes last, and may give up") {
  std::vector<float> logits = {1, 2, 3}, seen;
  const std::vector<int32_t> bad = {2};
  bool goes_on = true;
  const std::function<bool(std::span<float>)> custom = [&](std::span<float> row) {
    seen.assign(row.begin(), row.end());
    row[0] = 9;
    return goes_on;
  };
  CHECK(edit_logits(logits.data(), 3, {.bad = bad, .custom = &custom}));
  CHECK(seen == std::vector<float>{1, 2, -kInf});
  CHECK(logits == std::vector<float>{9, 2, -kInf});
  goes_on = false;
  CHECK_FALSE(edit_logits(logits.data(), 3, {.custom = &custom}));
}

TEST_CASE("no edits change nothing, and unknown ids have no effect") {
  std::vector<float> logits = {1, -2, 0.5f};
  edit_logits(logits.data(), 3, {});
  CHECK(logits == std::vector<float>{1, -2, 0.5f});
  const std::vector<int32_t> ids = {-1, 3, 1 << 30};
  const std::vector<TokenBias> bias = {{-1, 5}, {3, 5}};
  const std::vector<TokenCount> counts = {{3, 1, true}, {-1, 1, true}};
  edit_logits(logits.data(), 3, {.bias = bias, .banned = ids, .counts = counts, .bad = ids});
  CHECK(logits == std::vector<float>{1, -2, 0.5f});
}

}  // namespace
}  // namespace octavo
