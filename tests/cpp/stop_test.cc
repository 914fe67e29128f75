#include "sample/stop.h"

#include <doctest/doctest.h>

#include <limits>

#include "octavo/error.h"

namespace octavo {
namespace {

using Ids = std::vector<int32_t>;

TEST_CASE("the model's own end-of-sequence token is not reported as a stop token") {
  const StopCondition stop({.extra_eos_token_ids = {7}}, 2, 10);
  CHECK(stop.check(2, 1).reason == FinishReason::kStop);
  CHECK_FALSE(stop.check(2, 1).stop_token_id.has_value());
  CHECK(stop.check(7, 1).stop_token_id == 7);
  CHECK(stop.check(3, 1).reason == FinishReason::kNone);
}

TEST_CASE("ignore_eos ignores both kinds of end-of-sequence tokens and keeps stop ids") {
  const StopCondition stop({.ignore_eos = true, .stop_token_ids = {5}, .extra_eos_token_ids = {7}},
                           2, 10);
  CHECK(stop.check(2, 1).reason == FinishReason::kNone);
  CHECK(stop.check(7, 1).reason == FinishReason::kNone);
  CHECK(stop.check(5, 1).reason == FinishReason::kStop);
}

TEST_CASE("a stop token at the last place is a stop, any other a length") {
  const StopCondition stop({.stop_token_ids = {5}}, std::nullopt, 3);
  CHECK(stop.check(4, 2).reason == FinishReason::kNone);
  CHECK(stop.check(4, 3).reason == FinishReason::kLength);
  CHECK(stop.check(5, 3).reason == FinishReason::kStop);
}

TEST_CASE("end tokens are banned until min_tokens are there") {
  const StopCondition stop({.min_tokens = 2, .stop_token_ids = {5}, .extra_eos_token_ids = {7}}, 2,
                           10);
  const auto banned = stop.banned(1);
  CHECK(Ids(banned.begin(), banned.end()) == Ids{5, 7, 2});
  CHECK(stop.banned(2).empty());
  CHECK(stop.check(5, 2).reason == FinishReason::kNone);
  CHECK(stop.check(5, 3).reason == FinishReason::kStop);
}

TEST_CASE("sampling parameters are checked at their bounds") {
  const auto refused = [](const SamplingParams& params, const char* field) {
    try {
      params.validate(100);
    } catch (const InvalidArgument& error) {
      return std::string(error.what()).find(field) != std::string::npos;
    }
    return false;
  };
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  CHECK(refused({.n = 0}, "n must be at least 1"));
  CHECK(refused({.n = 16385}, "n must be at most 16384"));
  CHECK(refused({.n = 2, .temperature = 0}, "greedy"));
  CHECK(refused({.temperature = -0.1f}, "temperature"));
  CHECK(refused({.temperature = 2.1f}, "temperature"));
  CHECK(refused({.temperature = kNan}, "temperature"));
  CHECK(refused({.top_p = 0}, "top_p"));
  CHECK(refused({.top_p = 1.01f}, "top_p"));
  CHECK(refused({.top_p = kNan}, "top_p"));
  CHECK(refused({.top_k = -2}, "top_k"));
  CHECK(refused({.min_p = 1.1f}, "min_p"));
  CHECK(refused({.min_p = kNan}, "min_p"));
  CHECK(refused({.max_tokens = -1}, "max_tokens"));
  CHECK(refused({.min_tokens = -1}, "min_tokens"));
  CHECK(refused({.max_tokens = 3, .min_tokens = 4}, "min_tokens"));
  CHECK(refused({.stop_token_ids = {100}}, "stop_token_ids"));
  CHECK(refused({.stop_token_ids = {-1}}, "stop_token_ids"));
  CHECK(refused({.stop_token_ids = Ids(129, 1)}, "stop_token_ids"));
  CHECK(refused({.extra_eos_token_ids = {100}}, "extra_eos_token_ids"));
  CHECK(refused({.presence_penalty = 2.1f}, "presence_penalty must be in [-2, 2]"));
  CHECK(refused({.frequency_penalty = -2.1f}, "frequency_penalty must be in [-2, 2]"));
  CHECK(refused({.frequency_penalty = kNan}, "frequency_penalty"));
  CHECK(refused({.repetition_penalty = 0}, "repetition_penalty must be greater than zero"));
  CHECK(refused({.repetition_penalty = kNan}, "repetition_penalty must be a finite number"));
  CHECK(refused({.logit_bias = {{100, 1}}}, "logit_bias"));
  CHECK(refused({.logit_bias = {{1, kNan}}}, "logit_bias"));
  CHECK(refused({.logit_bias = std::vector<TokenBias>(1025)}, "logit_bias"));
  CHECK(refused({.allowed_token_ids = {100}}, "allowed_token_ids"));
  CHECK(refused({.bad_words = {{}}}, "bad_words"));
  CHECK(refused({.bad_words = {{1, -1}}}, "bad_words"));
  CHECK(refused({.bad_words = std::vector<Ids>(129, Ids{1})}, "bad_words"));
  CHECK(refused({.logprobs = -2}, "logprobs"));
  CHECK(refused({.logprob_token_ids = {100}}, "logprob_token_ids"));
  CHECK_NOTHROW(SamplingParams{.n = 16384}.validate(100));
  CHECK_NOTHROW(
      SamplingParams({.temperature = 2, .top_p = 1, .top_k = -1, .min_p = 1, .max_tokens = 1})
          .validate(100));
}

}  // namespace
}  // namespace octavo
