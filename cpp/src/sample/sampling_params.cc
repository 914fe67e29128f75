// Validation of the public SamplingParams: the one place where a request's values are checked.
#include "octavo/sampling_params.h"

#include <cmath>
#include <utility>

#include "base/check.h"

namespace octavo {
namespace {

constexpr int32_t kMaxSamples = 16384;  // as vLLM; bounds what one request can ask for
constexpr size_t kMaxStopIds = 128;
constexpr size_t kMaxEdits = 1024;  // as vLLM

void require(bool holds, const std::string& message) {
  if (!holds) throw InvalidArgument(message);
}

void check_ids(const std::vector<int32_t>& ids, const char* field, int64_t vocab_size,
               size_t max_count) {
  require(ids.size() <= max_count,
          str_cat(field, " must hold at most ", max_count, " ids, got ", ids.size(), "."));
  for (int32_t id : ids) {
    require(id >= 0 && id < vocab_size,
            str_cat("token_id(s) [", id, "] in ", field,
                    " contain out-of-vocab token ids. Vocabulary size: ", vocab_size));
  }
}

void check_penalties(const SamplingParams& params) {
  for (const auto& [name, value] : {std::pair("presence_penalty", params.presence_penalty),
                                    std::pair("frequency_penalty", params.frequency_penalty)}) {
    require(value >= -2 && value <= 2, str_cat(name, " must be in [-2, 2], got ", value, "."));
  }
  require(
      std::isfinite(params.repetition_penalty),
      str_cat("repetition_penalty must be a finite number, got ", params.repetition_penalty, "."));
  require(params.repetition_penalty > 0,
          str_cat("repetition_penalty must be greater than zero, got ", params.repetition_penalty,
                  "."));
}

void check_edits(const SamplingParams& params, int64_t vocab_size) {
  const auto known = [vocab_size](int32_t id) { return id >= 0 && id < vocab_size; };
  require(params.logit_bias.size() <= kMaxEdits,
          str_cat("logit_bias must hold at most ", kMaxEdits, " ids, got ",
                  params.logit_bias.size(), "."));
  for (const TokenBias& bias : params.logit_bias) {
    require(known(bias.token_id), str_cat("token_id(s) [", bias.token_id,
                                          "] in logit_bias contain out-of-vocab token ids. "
                                          "Vocabulary size: ",
                                          vocab_size));
    require(std::isfinite(bias.bias), str_cat("logit_bias of token ", bias.token_id,
                                              " must be a finite number, got ", bias.bias, "."));
  }
  check_ids(params.allowed_token_ids, "allowed_token_ids", vocab_size, kMaxEdits);
  require(params.bad_words.size() <= kMaxStopIds,
          str_cat("bad_words must hold at most ", kMaxStopIds, " token sequences, got ",
                  params.bad_words.size(), "."));
  for (const std::vector<int32_t>& word : params.bad_words) {
    require(!word.empty(), "bad_words must not hold an empty token sequence.");
    check_ids(word, "bad_words", vocab_size, kMaxEdits);
  }
}

void check_logprobs(const SamplingParams& params, int64_t vocab_size) {
  require(params.logprobs.value_or(0) >= -1,
          str_cat("logprobs must be non-negative or -1, got ", params.logprobs.value_or(0), "."));
  require(params.prompt_logprobs.value_or(0) >= -1,
          str_cat("prompt_logprobs must be non-negative or -1, got ",
                  params.prompt_logprobs.value_or(0), "."));
  check_ids(params.logprob_token_ids, "logprob_token_ids", vocab_size, kMaxStopIds);
}

void check_repetition(const RepetitionDetection& params) {
  require(params.max_pattern_size >= 0 && params.min_pattern_size >= 0,
          str_cat("repetition_detection must have sizes of at least 0, got ",
                  params.min_pattern_size, " to ", params.max_pattern_size, "."));
  require(params.min_pattern_size <= params.max_pattern_size,
          str_cat("repetition_detection: min_pattern_size must be at most max_pattern_size=",
                  params.max_pattern_size, ", got ", params.min_pattern_size, "."));
  require(
      params.max_pattern_size == 0 || params.min_count >= 2,
      str_cat("repetition_detection: min_count must be at least 2, got ", params.min_count, "."));
}

}  // namespace

void SamplingParams::validate(int64_t vocab_size) const {
  require(n >= 1, str_cat("n must be at least 1, got ", n, "."));
  require(n <= kMaxSamples, str_cat("n must be at most ", kMaxSamples, ", got ", n, "."));
  require(std::isfinite(temperature),
          str_cat("temperature must be a finite number, got ", temperature, "."));
  require(temperature >= 0, str_cat("temperature must be non-negative, got ", temperature, "."));
  require(temperature <= 2, str_cat("temperature must be in [0, 2], got ", temperature, "."));
  require(n == 1 || !greedy(), str_cat("n must be 1 when using greedy sampling, got ", n, "."));
  require(top_p > 0 && top_p <= 1, str_cat("top_p must be in (0, 1], got ", top_p, "."));
  require(top_k >= -1, str_cat("top_k must be 0 (disable), or at least 1, got ", top_k, "."));
  require(min_p >= 0 && min_p <= 1, str_cat("min_p must be in [0, 1], got ", min_p, "."));
  require(!max_tokens || *max_tokens >= 0,
          str_cat("max_tokens must be at least 1, got ", max_tokens.value_or(0), "."));
  require(min_tokens >= 0,
          str_cat("min_tokens must be greater than or equal to 0, got ", min_tokens, "."));
  require(!max_tokens || min_tokens <= *max_tokens,
          str_cat("min_tokens must be less than or equal to max_tokens=", max_tokens.value_or(0),
                  ", got ", min_tokens, "."));
  check_ids(stop_token_ids, "stop_token_ids", vocab_size, kMaxStopIds);
  check_ids(extra_eos_token_ids, "extra_eos_token_ids", vocab_size, kMaxStopIds);
  check_penalties(*this);
  check_edits(*this, vocab_size);
  check_logprobs(*this, vocab_size);
  check_repetition(repetition_detection);
  require(logits_processors.size() <= kMaxStopIds,
          str_cat("logits_processors must hold at most ", kMaxStopIds, ", got ",
                  logits_processors.size(), "."));
  for (const auto& processor : logits_processors) {
    require(processor != nullptr, "logits_processors must not hold a null pointer.");
  }
}

}  // namespace octavo
