// What a request's own code and its repetition rule do in the engine.
#include "octavo/logits_processor.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <stdexcept>

#include "tiny_engine.h"

namespace octavo {
namespace {

using test::prompt_of;
using test::run_all;
using test::TinyModel;
using Ids = std::vector<int32_t>;

// Lets only `token_id` come, and notes what it was called with.
struct Only : LogitsProcessor {
  explicit Only(int32_t id) : token_id(id) {}
  void process(std::span<const int32_t> ids, std::span<float> logits) override {
    const std::lock_guard lock(mutex);
    calls.emplace_back(ids.begin(), ids.end());
    vocab_size = logits.size();
    for (float& logit : logits) logit = -std::numeric_limits<float>::infinity();
    logits[static_cast<size_t>(token_id)] = 0;
  }
  int32_t token_id;
  std::mutex mutex;
  std::vector<Ids> calls;
  size_t vocab_size = 0;
};

struct Throws : LogitsProcessor {
  void process(std::span<const int32_t> ids, std::span<float>) override {
    if (ids.size() == 2) throw std::runtime_error("no third token");
  }
};

SamplingParams greedy(int32_t max_tokens) {
  return {.temperature = 0, .max_tokens = max_tokens, .ignore_eos = true};
}

TEST_CASE("a logits processor sees the tokens so far and decides the next") {
  for (const char* device : {"ref", "cpu"}) {
    CAPTURE(device);
    TinyModel model({.device = device});
    Engine engine(model.config);
    const auto only = std::make_shared<Only>(11);
    SamplingParams params = greedy(3);
    params.logits_processors = {only};
    const RequestId id = engine.add_request(prompt_of(5, 1), params);
    const RequestId plain = engine.add_request(prompt_of(5, 1), greedy(3));
    const auto outputs = run_all(engine);
    CHECK(outputs.at({id, 0}).new_token_ids == Ids{11, 11, 11});
    CHECK(outputs.at({plain, 0}).new_token_ids != Ids{11, 11, 11});
    CHECK(only->calls == std::vector<Ids>{{}, {11}, {11, 11}});
    CHECK(only->vocab_size == TinyModel::kVocab);
  }
}

TEST_CASE("processors run in their order, also for several samples") {
  TinyModel model;
  Engine engine(model.config);
  SamplingParams params{.n = 3, .temperature = 1, .seed = 1, .max_tokens = 4, .ignore_eos = true};
  params.logits_processors = {std::make_shared<Only>(11), std::make_shared<Only>(12)};
  const RequestId id = engine.add_request(prompt_of(5, 1), params);
  const auto outputs = run_all(engine);
  for (int32_t i = 0; i < 3; ++i) {
    CHECK(outputs.at({id, i}).new_token_ids == Ids{12, 12, 12, 12});
  }
}

TEST_CASE("a processor that throws ends its request with its words, and no other") {
  TinyModel model;
  Engine engine(model.config);
  SamplingParams params = greedy(8);
  const RequestId alone = engine.add_request(prompt_of(9, 2), params);
  const Ids expected = run_all(engine).at({alone, 0}).new_token_ids;
  const RequestId neighbour = engine.add_request(prompt_of(9, 2), params);
  params.logits_processors = {std::make_shared<Throws>()};
  const RequestId failing = engine.add_request(prompt_of(9, 2), params);
  const auto outputs = run_all(engine);
  CHECK(outputs.at({neighbour, 0}).new_token_ids == expected);
  const RequestOutput& failed = outputs.at({failing, 0});
  CHECK(failed.finish_reason == FinishReason::kError);
  CHECK(failed.error == "logits_processors: no third token");
  CHECK(failed.new_token_ids == Ids(expected.begin(), expected.begin() + 2));
  CHECK(engine.stats().num_blocks_used == 0);
}

TEST_CASE("a null processor is refused") {
  TinyModel model;
  Engine engine(model.config);
  SamplingParams params = greedy(8);
  params.logits_processors = {nullptr};
  CHECK_THROWS_AS(engine.add_request(prompt_of(3, 0), params), InvalidArgument);
}

TEST_CASE("an output that repeats itself ends, not before min_tokens") {
  TinyModel model;
  Engine engine(model.config);
  SamplingParams params = greedy(20);
  params.logits_processors = {std::make_shared<Only>(7)};
  params.repetition_detection = {.max_pattern_size = 2, .min_count = 3};
  const RequestId id = engine.add_request(prompt_of(4, 3), params);
  params.min_tokens = 9;
  const RequestId later = engine.add_request(prompt_of(4, 3), params);
  params.max_tokens = 9;
  const RequestId full = engine.add_request(prompt_of(4, 3), params);
  const auto outputs = run_all(engine);
  CHECK(outputs.at({id, 0}).new_token_ids == Ids(3, 7));
  CHECK(outputs.at({id, 0}).finish_reason == FinishReason::kRepetition);
  CHECK(outputs.at({later, 0}).new_token_ids == Ids(9, 7));
  CHECK(outputs.at({later, 0}).finish_reason == FinishReason::kRepetition);
  CHECK(outputs.at({full, 0}).finish_reason == FinishReason::kLength);
}

TEST_CASE("times are in their order, and validate changes nothing") {
  TinyModel model;
  Engine engine(model.config);
  engine.validate(prompt_of(4, 3), greedy(5));
  CHECK_THROWS_AS(engine.validate(prompt_of(4, 3), {.top_p = 2}), InvalidArgument);
  CHECK_THROWS_AS(engine.validate(Ids{}, greedy(5)), InvalidArgument);
  CHECK_FALSE(engine.has_unfinished_requests());
  const RequestId id = engine.add_request(prompt_of(4, 3), greedy(5));
  const RequestTimes times = run_all(engine).at({id, 0}).times;
  CHECK(times.queued > 0);
  CHECK(times.scheduled >= times.queued);
  CHECK(times.first_token >= times.scheduled);
  CHECK(times.last_token >= times.first_token);
  CHECK(times.num_preemptions == 0);
}

TEST_CASE("a request may leave the prefix cache unread") {
  TinyModel model;
  Engine engine(model.config);
  SamplingParams params = greedy(4);
  engine.add_request(prompt_of(40, 5), params);
  const Ids expected = run_all(engine).begin()->second.new_token_ids;
  const RequestId reads = engine.add_request(prompt_of(40, 5), params);
  CHECK(run_all(engine).at({reads, 0}).num_cached_tokens == 32);
  params.skip_reading_prefix_cache = true;
  const RequestId skips = engine.add_request(prompt_of(40, 5), params);
  const auto outputs = run_all(engine);
  CHECK(outputs.at({skips, 0}).num_cached_tokens == 0);
  CHECK(outputs.at({skips, 0}).new_token_ids == expected);
}

}  // namespace
}  // namespace octavo
