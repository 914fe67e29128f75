#include "packed_rows.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/philox.h"

namespace octavo::cuda {
namespace {

constexpr size_t kAlignment = 8;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool has_edits(const LogitEdits& edits) {
  return !edits.bias.empty() || !edits.allowed.empty() || !edits.banned.empty() ||
         !edits.counts.empty() || !edits.bad.empty() || !edits.mask.empty();
}

// Ranks of ids in the order of their values, as in row_logprobs.cc: the place of the last that is
// equal; only the last value can have equals beyond the list.
void append_ranks(std::span<const float> values, int32_t last_rank, std::vector<int32_t>& ranks) {
  const size_t first = ranks.size();
  ranks.resize(first + values.size());
  int32_t rank = last_rank;
  for (size_t i = values.size(); i-- > 0;) {
    if (i + 1 < values.size() && values[i] != values[i + 1]) rank = static_cast<int32_t>(i) + 1;
    ranks[first + i] = rank;
  }
}

}  // namespace

bool needs_host(const SampleRow& row, bool wanted, int64_t vocab) {
  if (row.edits.custom != nullptr && row.given < 0) return true;
  if (vocab > kMostSampledVocab) return true;
  if (!wanted) return false;
  const LogprobRequest& request = row.logprobs;
  if (!request.ids.empty()) return request.ids.size() > static_cast<size_t>(kMostLogprobs);
  return request.top < 0 || std::min<int64_t>(request.top, vocab) > kMostLogprobs;
}

bool is_plain(const SampleRow& row, bool wanted) {
  return !wanted && row.given < 0 && row.temperature <= 0.0f && row.edits.custom == nullptr &&
         !has_edits(row.edits);
}

bool PackedRows::needs_copy(const SampleRow& row, bool wanted) {
  return wanted && !row.logprobs.processed && row.given < 0 && has_edits(row.edits);
}

void PackedRows::clear(size_t rows, int64_t vocab) {
  rows_ = 0;
  vocab_ = vocab;
  result_bytes_ = 0;
  bytes_.clear();
  bytes_.resize(rows * sizeof(PackedRow));
}

template <typename T>
uint32_t PackedRows::append(std::span<const T> values) {
  const size_t place = bytes_.size();
  OCTAVO_CHECK(place < UINT32_MAX, "sample: ", place, " bytes of edits; expected less than 4 GiB");
  bytes_.resize(aligned(place + values.size_bytes()));
  if (!values.empty()) std::memcpy(bytes_.data() + place, values.data(), values.size_bytes());
  return static_cast<uint32_t>(place);
}

// The mask and the allowed ids as one mask.
uint32_t PackedRows::append_mask(const LogitEdits& edits) {
  if (edits.allowed.empty()) return append(edits.mask);
  std::vector<uint32_t> words(static_cast<size_t>(vocab_ + 31) / 32);
  for (int32_t id : edits.allowed) {
    if (id >= 0 && id < vocab_) words[static_cast<size_t>(id) / 32] |= uint32_t{1} << (id % 32);
  }
  for (size_t i = 0; i < edits.mask.size(); ++i) words[i] &= edits.mask[i];
  return append(std::span<const uint32_t>(words));
}

void PackedRows::pack_edits(const LogitEdits& edits, PackedRow& packed) {
  packed.has_edits = 1;
  std::vector<PackedBias> bias;
  for (const TokenBias& one : edits.bias) bias.push_back({one.token_id, one.bias});
  std::vector<PackedCount> counts;
  counts.reserve(edits.counts.size());
  for (const TokenCount& one : edits.counts) {
    const auto in_output = static_cast<uint32_t>(std::max(one.in_output, 0));
    counts.push_back({one.token_id, 2 * in_output + (one.in_prompt ? 1u : 0u)});
  }
  packed.bias_at = append(std::span<const PackedBias>(bias));
  packed.counts_at = append(std::span<const PackedCount>(counts));
  packed.banned_at = append(edits.banned);
  packed.bad_at = append(edits.bad);
  packed.mask_at = append_mask(edits);
  packed.num_bias = static_cast<int32_t>(bias.size());
  packed.num_counts = static_cast<int32_t>(counts.size());
  packed.num_banned = static_cast<int32_t>(edits.banned.size());
  packed.num_bad = static_cast<int32_t>(edits.bad.size());
  const bool masked = !edits.mask.empty() || !edits.allowed.empty();
  packed.mask_words = masked ? static_cast<int32_t>((vocab_ + 31) / 32) : 0;
  packed.repetition_penalty = edits.repetition_penalty;
  packed.frequency_penalty = edits.frequency_penalty;
  packed.presence_penalty = edits.presence_penalty;
}

void PackedRows::pack_request(const LogprobRequest& request, PackedRow& packed) {
  packed.wanted = 1;
  packed.processed = request.processed ? 1 : 0;
  packed.scaled = request.logits ? 0 : 1;
  packed.num_ids = static_cast<int32_t>(request.ids.size());
  packed.ids_at = append(request.ids);
  packed.top = request.top;
  packed.result_at = static_cast<uint32_t>(result_bytes_);
  const size_t count = request.ids.empty()
                           ? static_cast<size_t>(std::min<int64_t>(request.top, vocab_))
                           : request.ids.size();
  const size_t lists = request.ids.empty() ? 2 : 3;  // ranks are of ids that were asked for
  result_bytes_ += sizeof(PackedResult) + aligned(lists * count * sizeof(int32_t));
}

void PackedRows::add(const SampleRow& row, int32_t index, bool wanted, int32_t copy) {
  PackedRow packed{};
  packed.temperature = row.temperature;
  packed.top_p = row.top_p;
  packed.min_p = row.min_p;
  packed.top_k = row.top_k;
  packed.given = row.given;
  packed.row = index;
  packed.copy = copy;
  if (row.temperature > 0.0f && row.given < 0) {
    packed.uniform = philox_uniform(row.seed, row.sample_index, row.position);
  }
  if (row.given < 0 && has_edits(row.edits)) pack_edits(row.edits, packed);
  if (wanted) pack_request(row.logprobs, packed);
  OCTAVO_CHECK((rows_ + 1) * sizeof(PackedRow) <= bytes_.size());
  std::memcpy(bytes_.data() + rows_++ * sizeof(PackedRow), &packed, sizeof(PackedRow));
}

PackedRow PackedRows::row(size_t i) const {
  PackedRow row;
  std::memcpy(&row, bytes_.data() + i * sizeof(PackedRow), sizeof(PackedRow));
  return row;
}

TokenLogprobs unpack_result(const PackedResult* result, bool by_ids, bool logits) {
  TokenLogprobs answer;
  if (result->token < 0) return answer;
  const auto count = static_cast<size_t>(result->count);
  const auto* ids = reinterpret_cast<const int32_t*>(result + 1);
  const auto* values = reinterpret_cast<const float*>(ids + count);
  const auto* ranks = reinterpret_cast<const int32_t*>(values + count);
  const auto max = static_cast<double>(result->max);
  const double base = logits ? 0.0 : std::isinf(max) ? max : max + std::log(result->sum);
  const auto logprob = [base](float value) {
    return static_cast<float>(static_cast<double>(value) - base);
  };
  answer.token_ids.push_back(result->token);
  answer.token_ids.insert(answer.token_ids.end(), ids, ids + count);
  answer.logprobs.push_back(logprob(result->token_value));
  for (size_t i = 0; i < count; ++i) answer.logprobs.push_back(logprob(values[i]));
  answer.ranks.push_back(result->token_rank);
  if (by_ids) {
    answer.ranks.insert(answer.ranks.end(), ranks, ranks + count);
  } else {
    append_ranks({values, count}, result->last_rank, answer.ranks);
  }
  return answer;
}

}  // namespace octavo::cuda
