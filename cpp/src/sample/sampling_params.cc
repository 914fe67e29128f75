// Validation of the public SamplingParams: the one place where a request's values are checked.
#include "octavo/sampling_params.h"

#include <cmath>

#include "base/check.h"

namespace octavo {
namespace {

constexpr int32_t kMaxSamples = 16384;  // as vLLM; bounds what one request can ask for
constexpr size_t kMaxStopIds = 128;

void require(bool holds, const std::string& message) {
  if (!holds) throw InvalidArgument(message);
}

void check_ids(const std::vector<int32_t>& ids, const char* field, int64_t vocab_size) {
  require(ids.size() <= kMaxStopIds,
          str_cat(field, " must hold at most ", kMaxStopIds, " ids, got ", ids.size(), "."));
  for (int32_t id : ids) {
    require(id >= 0 && id < vocab_size,
            str_cat("token_id(s) [", id, "] in ", field,
                    " contain out-of-vocab token ids. Vocabulary size: ", vocab_size));
  }
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
  require(!max_tokens || *max_tokens >= 1,
          str_cat("max_tokens must be at least 1, got ", max_tokens.value_or(0), "."));
  require(min_tokens >= 0,
          str_cat("min_tokens must be greater than or equal to 0, got ", min_tokens, "."));
  require(!max_tokens || min_tokens <= *max_tokens,
          str_cat("min_tokens must be less than or equal to max_tokens=", max_tokens.value_or(0),
                  ", got ", min_tokens, "."));
  check_ids(stop_token_ids, "stop_token_ids", vocab_size);
  check_ids(extra_eos_token_ids, "extra_eos_token_ids", vocab_size);
}

}  // namespace octavo
