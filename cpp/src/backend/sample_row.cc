#include "backend/sample_row.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "backend/edit_logits.h"
#include "backend/exp_nonpositive.h"
#include "backend/row_logprobs.h"
#include "base/philox.h"

namespace octavo {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kSumChunk = 256;  // ids whose weights are summed before they join the total

// The largest logit; NaN where any logit is NaN. Lanes, so that the compiler makes vectors of it.
float max_or_nan(const float* logits, int64_t vocab) {
  constexpr int kLanes = 16;
  float lane_max[kLanes];
  float lane_nan[kLanes] = {};  // NaN stays NaN in a sum of zeros
  std::fill(lane_max, lane_max + kLanes, -kInfinity);
  int64_t i = 0;
  for (; i + kLanes <= vocab; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float value = logits[i + lane];
      lane_max[lane] = value > lane_max[lane] ? value : lane_max[lane];
      lane_nan[lane] = value == value ? lane_nan[lane] : value;
    }
  }
  for (int lane = 0; i < vocab; ++i, ++lane) {
    lane_max[lane] = logits[i] > lane_max[lane] ? logits[i] : lane_max[lane];
    lane_nan[lane] = logits[i] == logits[i] ? lane_nan[lane] : logits[i];
  }
  float result = -kInfinity;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (lane_nan[lane] != lane_nan[lane]) return lane_nan[lane];
    result = std::max(result, lane_max[lane]);
  }
  return result;
}

// The k-th largest logit: a buffer of candidates, halved by selection whenever it is full.
float kth_largest(const float* logits, int64_t vocab, int64_t k) {
  thread_local std::vector<float> candidates;
  candidates.clear();
  candidates.reserve(static_cast<size_t>(2 * k + 64));
  float threshold = -kInfinity;  // at least k logits seen are not below it
  const auto select = [&] {
    std::nth_element(candidates.begin(), candidates.begin() + (k - 1), candidates.end(),
                     std::greater<float>());
    candidates.resize(static_cast<size_t>(k));
    threshold = candidates.back();
  };
  for (int64_t i = 0; i < vocab; ++i) {
    if (!(logits[i] > threshold)) continue;
    candidates.push_back(logits[i]);
    if (static_cast<int64_t>(candidates.size()) == 2 * k + 64) select();
  }
  if (static_cast<int64_t>(candidates.size()) < k) return -kInfinity;
  select();
  return threshold;
}

// Logits become weights, relative to the largest one's; those that min_p and top_k drop become 0.
void weigh(float* logits, int64_t vocab, float max, const SampleRow& row) {
  const float threshold =
      row.top_k > 0 && row.top_k < vocab ? kth_largest(logits, vocab, row.top_k) : -kInfinity;
  const float min_p = row.min_p;
  if (max == kInfinity) {
    for (int64_t i = 0; i < vocab; ++i) logits[i] = logits[i] == kInfinity ? 1.0f : 0.0f;
    return;
  }
  const float temperature = row.temperature;
  for (int64_t i = 0; i < vocab; ++i) {
    const float weight = exp_nonpositive((logits[i] - max) / temperature);
    logits[i] = keep_if((logits[i] >= threshold) & (weight >= min_p), weight);
  }
}

// The sum of a chunk, in eight lanes.
double sum_chunk(const float* weights, int64_t count) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int lane = 0; lane < 8; ++lane) lanes[lane] += static_cast<double>(weights[i + lane]);
  }
  for (int lane = 0; i < count; ++i, ++lane) lanes[lane] += static_cast<double>(weights[i]);
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) +
         ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

double sum_weights(const float* weights, int64_t vocab) {
  double total = 0.0;
  for (int64_t i = 0; i < vocab; i += kSumChunk) {
    total += sum_chunk(weights + i, std::min(kSumChunk, vocab - i));
  }
  return total;
}

// Weights lie in [0, 1], and positive floats order as their bits do: a bucket holds the weights
// whose upper 16 bits are equal.
constexpr uint32_t kBuckets = 0x3f80u + 1;
uint32_t bucket_of(float weight) { return std::bit_cast<uint32_t>(weight) >> 16; }

// Within the bucket where the set ends: keeps the most probable ids, ties by the lower id, until
// the sum of all that is kept reaches `target`; drops the others.
void cut_bucket(float* weights, int64_t vocab, uint32_t bucket, double sum_above, double target) {
  thread_local std::vector<int32_t> ids;
  ids.clear();
  for (int64_t i = 0; i < vocab; ++i) {
    if (weights[i] > 0.0f && bucket_of(weights[i]) == bucket)
      ids.push_back(static_cast<int32_t>(i));
  }
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return weights[a] > weights[b]; });
  double sum = sum_above;
  bool reached = false;
  for (int32_t id : ids) {
    if (reached) {
      weights[id] = 0.0f;
      continue;
    }
    sum += static_cast<double>(weights[id]);
    reached = sum >= target;
  }
}

// Keeps the smallest set of most probable ids whose probabilities sum to top_p, at least one.
void keep_top_p(float* weights, int64_t vocab, float top_p) {
  thread_local std::vector<double> sums;
  sums.assign(kBuckets, 0.0);
  for (int64_t i = 0; i < vocab; ++i) {
    if (weights[i] > 0.0f) sums[bucket_of(weights[i])] += static_cast<double>(weights[i]);
  }
  double total = 0.0;
  for (double sum : sums) total += sum;
  // A user's 0.1 may have become a float a little above it, which must not cost one id more.
  const double target = static_cast<double>(top_p) * (1.0 - 0x1.0p-24) * total;
  uint32_t bucket = kBuckets - 1;
  double sum_above = 0.0;
  while (bucket > 0 && (sums[bucket] == 0.0 || sum_above + sums[bucket] < target)) {
    sum_above += sums[bucket--];
  }
  const float lowest = std::bit_cast<float>(bucket << 16);
  for (int64_t i = 0; i < vocab; ++i) weights[i] = weights[i] >= lowest ? weights[i] : 0.0f;
  cut_bucket(weights, vocab, bucket, sum_above, target);
}

// Within a chunk of ids: the first whose cumulative weight exceeds `target`, else the last of
// weight.
int64_t find_in_chunk(const float* weights, int64_t count, double sum, double target) {
  int64_t last = -1;
  for (int64_t i = 0; i < count; ++i) {
    if (weights[i] == 0.0f) continue;
    last = i;
    sum += static_cast<double>(weights[i]);
    if (sum > target) break;
  }
  return last;
}

// The first id whose cumulative weight exceeds `uniform` of the total. Where the rounding of sums
// leaves none, the last id of weight.
int32_t invert_distribution(const float* weights, int64_t vocab, double uniform) {
  const double target = uniform * sum_weights(weights, vocab);
  double sum = 0.0;
  double sum_before = 0.0;
  int64_t chosen = -1;  // the chunk
  for (int64_t begin = 0; begin < vocab; begin += kSumChunk) {
    const double chunk = sum_chunk(weights + begin, std::min(kSumChunk, vocab - begin));
    if (chunk == 0.0) continue;
    chosen = begin;
    sum_before = sum;
    sum += chunk;
    if (sum > target) break;
  }
  if (chosen < 0) return -1;
  const int64_t count = std::min(kSumChunk, vocab - chosen);
  return static_cast<int32_t>(chosen + find_in_chunk(weights + chosen, count, sum_before, target));
}

int32_t draw(float* logits, int64_t vocab, const SampleRow& row) {
  const float max = max_or_nan(logits, vocab);
  if (max != max || max == -kInfinity) return -1;
  if (row.temperature <= 0.0f) {
    return static_cast<int32_t>(std::find(logits, logits + vocab, max) - logits);
  }
  weigh(logits, vocab, max, row);
  if (row.top_p < 1.0f) keep_top_p(logits, vocab, row.top_p);
  return invert_distribution(logits, vocab,
                             philox_uniform(row.seed, row.sample_index, row.position));
}

// The edited logits as they were drawn from: over the temperature, and -infinity where a filter
// left no weight.
void apply_filters(std::vector<float>& values, const float* weights, float temperature) {
  if (temperature <= 0.0f) return;
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = weights[i] == 0.0f ? -kInfinity : values[i] / temperature;
  }
}

}  // namespace

int32_t sample_row(float* logits, int64_t vocab, const SampleRow& row, TokenLogprobs* logprobs) {
  const float max = max_or_nan(logits, vocab);
  if (max != max) return -1;
  const LogprobRequest& request = row.logprobs;
  const bool wanted = logprobs != nullptr && request.wanted;
  if (row.given >= 0) {
    if (wanted) *logprobs = row_logprobs(logits, vocab, row.given, request);
    return row.given;
  }
  thread_local std::vector<float> values;  // drawing overwrites the logits
  if (wanted && !request.processed) values.assign(logits, logits + vocab);
  if (!edit_logits(logits, vocab, row.edits)) return -1;
  if (wanted && request.processed) values.assign(logits, logits + vocab);
  const int32_t token = draw(logits, vocab, row);
  if (!wanted || token < 0) return token;
  if (request.processed) apply_filters(values, logits, row.temperature);
  *logprobs = row_logprobs(values.data(), vocab, token, request);
  return token;
}

}  // namespace octavo
