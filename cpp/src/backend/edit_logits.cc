#include "backend/edit_logits.h"

#include <algorithm>
#include <limits>

namespace octavo {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

void forbid(float* logits, int64_t vocab, std::span<const int32_t> ids) {
  for (int32_t id : ids) {
    if (id >= 0 && id < vocab) logits[id] = -kInfinity;
  }
}

// Everything between two allowed ids, which are sorted.
void forbid_all_but(float* logits, int64_t vocab, std::span<const int32_t> allowed) {
  int64_t begin = 0;
  for (int32_t id : allowed) {
    if (id < begin || id >= vocab) continue;
    std::fill(logits + begin, logits + id, -kInfinity);
    begin = int64_t{id} + 1;
  }
  std::fill(logits + begin, logits + vocab, -kInfinity);
}

void apply_mask(float* logits, int64_t vocab, std::span<const uint32_t> mask) {
  for (size_t word = 0; word < mask.size(); ++word) {
    const uint32_t bits = mask[word];
    if (bits == ~uint32_t{0}) continue;
    const int64_t begin = static_cast<int64_t>(word) * 32;
    const int64_t count = std::min<int64_t>(32, vocab - begin);
    for (int64_t i = 0; i < count; ++i) {
      logits[begin + i] = (bits >> i) & 1 ? logits[begin + i] : -kInfinity;
    }
  }
}

// Repetition as in Keskar et al. 2019, "CTRL"; frequency and presence as OpenAI defines them.
void penalise(float* logits, int64_t vocab, const LogitEdits& edits) {
  for (const TokenCount& count : edits.counts) {
    if (count.token_id < 0 || count.token_id >= vocab) continue;
    float& logit = logits[count.token_id];
    if (count.in_prompt || count.in_output > 0) {
      logit = logit > 0 ? logit / edits.repetition_penalty : logit * edits.repetition_penalty;
    }
    if (count.in_output > 0) {
      logit -= edits.frequency_penalty * static_cast<float>(count.in_output);
      logit -= edits.presence_penalty;
    }
  }
}

}  // namespace

bool edit_logits(float* logits, int64_t vocab, const LogitEdits& edits) {
  for (const TokenBias& bias : edits.bias) {
    if (bias.token_id >= 0 && bias.token_id < vocab) logits[bias.token_id] += bias.bias;
  }
  apply_mask(logits, vocab, edits.mask);
  if (!edits.allowed.empty()) forbid_all_but(logits, vocab, edits.allowed);
  forbid(logits, vocab, edits.banned);
  penalise(logits, vocab, edits);
  forbid(logits, vocab, edits.bad);
  if (edits.custom == nullptr) return true;
  return (*edits.custom)(std::span(logits, static_cast<size_t>(vocab)));
}

}  // namespace octavo
