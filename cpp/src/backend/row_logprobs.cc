#include "backend/row_logprobs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/exp_nonpositive.h"

namespace octavo {
namespace {

// log(sum(exp(values))), in double, in the order of ids by lanes.
double log_sum_exp(const float* values, int64_t vocab) {
  const float max = *std::max_element(values, values + vocab);
  if (std::isinf(max)) return static_cast<double>(max);
  constexpr int kLanes = 8;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= vocab; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += static_cast<double>(exp_nonpositive(values[i + lane] - max));
    }
  }
  for (int lane = 0; i < vocab; ++i, ++lane) {
    lanes[lane] += static_cast<double>(exp_nonpositive(values[i] - max));
  }
  return static_cast<double>(max) + std::log(std::accumulate(lanes, lanes + kLanes, 0.0));
}

int32_t rank_of(const float* values, int64_t vocab, float value) {
  return static_cast<int32_t>(
      std::count_if(values, values + vocab, [value](float other) { return other >= value; }));
}

// The `count` most probable ids, best first, ties by the lower id.
std::vector<int32_t> top_ids(const float* values, int64_t vocab, int64_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(vocab));
  std::iota(ids.begin(), ids.end(), 0);
  const auto better = [values](int32_t a, int32_t b) {
    return values[a] != values[b] ? values[a] > values[b] : a < b;
  };
  const auto end = ids.begin() + std::min(count, vocab);
  std::partial_sort(ids.begin(), end, ids.end(), better);
  ids.erase(end, ids.end());
  return ids;
}

// Ranks of ids in the order of their values: the place of the last that is equal. Only the last
// value can have equals beyond the list.
void append_ranks(const float* values, int64_t vocab, const std::vector<int32_t>& ids,
                  std::vector<int32_t>& ranks) {
  if (ids.empty()) return;
  std::vector<int32_t> reversed;
  int32_t rank = rank_of(values, vocab, values[ids.back()]);
  for (size_t i = ids.size(); i-- > 0;) {
    const bool equals_next = i + 1 < ids.size() && values[ids[i]] == values[ids[i + 1]];
    if (i + 1 < ids.size() && !equals_next) rank = static_cast<int32_t>(i) + 1;
    reversed.push_back(rank);
  }
  ranks.insert(ranks.end(), reversed.rbegin(), reversed.rend());
}

}  // namespace

TokenLogprobs row_logprobs(const float* values, int64_t vocab, int32_t token,
                           const LogprobRequest& request) {
  TokenLogprobs result;
  result.token_ids.push_back(token);
  result.ranks.push_back(rank_of(values, vocab, values[token]));
  if (!request.ids.empty()) {
    for (int32_t id : request.ids) {
      result.token_ids.push_back(id);
      result.ranks.push_back(rank_of(values, vocab, values[id]));
    }
  } else {
    const std::vector<int32_t> ids = top_ids(values, vocab, request.top < 0 ? vocab : request.top);
    result.token_ids.insert(result.token_ids.end(), ids.begin(), ids.end());
    append_ranks(values, vocab, ids, result.ranks);
  }
  const double base = request.logits ? 0.0 : log_sum_exp(values, vocab);
  for (int32_t id : result.token_ids) {
    result.logprobs.push_back(static_cast<float>(static_cast<double>(values[id]) - base));
  }
  return result;
}

}  // namespace octavo
