// Validation of the public BeamSearchParams: the one place where their values are checked.
#include <cmath>

#include "base/check.h"
#include "octavo/beam_search.h"
#include "octavo/error.h"

namespace octavo {
namespace {

constexpr int32_t kMaxBeams = 16384;  // as vLLM
constexpr size_t kMaxStops = 128;
constexpr size_t kMaxStopBytes = 4096;

void require(bool holds, const std::string& message) {
  if (!holds) throw InvalidArgument(message);
}

}  // namespace

SamplingParams BeamSearchParams::effective_tokens() const {
  SamplingParams params = tokens;
  params.max_tokens = max_tokens;
  params.temperature = 0;
  return params;
}

void BeamSearchParams::validate(int64_t vocab_size) const {
  require(beam_width >= 1, str_cat("beam_width must be at least 1, got ", beam_width, "."));
  require(beam_width <= kMaxBeams,
          str_cat("beam_width must be at most ", kMaxBeams, ", got ", beam_width, "."));
  require(max_tokens >= 1, str_cat("max_tokens must be at least 1, got ", max_tokens, "."));
  require(std::isfinite(length_penalty),
          str_cat("length_penalty must be a finite number, got ", length_penalty, "."));
  require(num_return_sequences >= 0 && num_return_sequences <= beam_width,
          str_cat("num_return_sequences must be in [1, beam_width=", beam_width, "], got ",
                  num_return_sequences, "."));
  require(num_groups >= 1 && beam_width % num_groups == 0,
          str_cat("num_groups must divide beam_width=", beam_width, ", got ", num_groups, "."));
  require(std::isfinite(diversity_penalty) && diversity_penalty >= 0,
          str_cat("diversity_penalty must be a finite number of at least 0, got ",
                  diversity_penalty, "."));
  require(diversity_penalty == 0 || num_groups > 1,
          "diversity_penalty needs num_groups of at least 2.");
  require(stop.size() <= kMaxStops,
          str_cat("stop must hold at most ", kMaxStops, " texts, got ", stop.size(), "."));
  for (const std::string& text : stop) {
    require(!text.empty(), "stop cannot contain an empty string.");
    require(text.size() <= kMaxStopBytes, str_cat("stop must hold texts of at most ", kMaxStopBytes,
                                                  " bytes, got ", text.size(), "."));
  }
  effective_tokens().validate(vocab_size);
  require(tokens.n == 1, str_cat("n must be 1 in a beam search, got ", tokens.n, "."));
  require(
      !tokens.logprobs && !tokens.prompt_logprobs && tokens.logprob_token_ids.empty(),
      "logprobs, prompt_logprobs and logprob_token_ids must be none in a beam search: its beams "
      "have log-probabilities of their own.");
  require(tokens.repetition_detection.max_pattern_size == 0,
          "repetition_detection must be off in a beam search.");
}

}  // namespace octavo
