// What an engine's metrics say of the requests that went through it.
#include <doctest/doctest.h>

#include <string>

#include "octavo/engine.h"
#include "tiny_engine.h"

namespace octavo {
namespace {

using test::prompt_of;
using test::run_all;
using test::TinyModel;

Metric find(const Engine& engine, const std::string& name, const std::string& label = {}) {
  for (Metric& metric : engine.metrics()) {
    if (metric.name == name && (label.empty() || metric.labels.at(0).second == label)) {
      return std::move(metric);
    }
  }
  FAIL("no metric ", name);
  return {};
}

SamplingParams sampled(int32_t n, int32_t max_tokens) {
  return {.n = n, .seed = 3, .max_tokens = max_tokens, .ignore_eos = true};
}

TEST_CASE("requests, tokens and times") {
  TinyModel model;
  Engine engine(model.config);
  engine.add_request(prompt_of(40, 1), sampled(1, 5));
  run_all(engine);
  engine.add_request(prompt_of(40, 1), sampled(3, 6));
  SamplingParams stopped = sampled(1, 7);
  for (int32_t id = 0; id < TinyModel::kVocab; ++id) stopped.stop_token_ids.push_back(id);
  engine.add_request(prompt_of(20, 2), stopped);
  SamplingParams scored = sampled(1, 0);
  engine.add_request(prompt_of(10, 3), scored);
  SamplingParams open = sampled(1, 0);
  open.max_tokens.reset();
  const RequestId aborted = engine.add_request(prompt_of(30, 4), open);
  engine.step();
  CHECK(find(engine, "num_requests_running").value == 4);  // three samples and the endless one
  CHECK(find(engine, "kv_cache_usage_perc").value > 0);
  engine.step();
  CHECK(engine.abort(aborted));
  run_all(engine);

  const auto value = [&](const char* name, const char* label = "") {
    return find(engine, name, label).value;
  };
  CHECK(value("request_success", "length") == 3);
  CHECK(value("request_success", "stop") == 1);
  CHECK(value("request_success", "abort") == 1);
  CHECK(value("request_success", "error") == 0);
  CHECK(value("prompt_tokens") == 40 + 40 + 20 + 10 + 30);
  CHECK(value("prompt_tokens_cached") == 32);
  CHECK(value("generation_tokens") == 5 + 18 + 1 + 0 + 2);
  CHECK(value("num_requests_running") == 0);
  CHECK(value("kv_cache_usage_perc") == 0);
  CHECK(value("engine_sleep_state", "awake") == 1);

  const auto check = [&](const char* name, int64_t count, double sum) {
    CAPTURE(name);
    const Metric metric = find(engine, name);
    CHECK(metric.count == count);
    CHECK(metric.sum == sum);
  };
  check("request_prompt_tokens", 5, 140);
  check("request_generation_tokens", 5, 26);
  check("request_max_num_generation_tokens", 5, 5 + 6 + 1 + 2);
  check("request_prefill_kv_computed_tokens", 5, 140 - 32);
  check("request_params_n", 5, 7);
  check("request_params_max_tokens", 4, 5 + 6 + 7 + 0);
  check("request_num_preemptions", 5, 0);
  const EngineStats stats = engine.stats();
  check("iteration_tokens_total", stats.num_steps, static_cast<double>(stats.num_scheduled_tokens));

  const auto observed = [&](const char* name) {
    const Metric metric = find(engine, name);
    CHECK(metric.sum >= 0);
    CHECK(metric.sum < 3600);  // of the same clock
    return metric.count;
  };
  CHECK(observed("time_to_first_token_seconds") == 4);
  CHECK(observed("inter_token_latency_seconds") == 4 + 3 * 5 + 0 + 1);
  CHECK(observed("e2e_request_latency_seconds") == 4);
  CHECK(observed("request_queue_time_seconds") == 4);
  CHECK(observed("request_inference_time_seconds") == 4);
  CHECK(observed("request_prefill_time_seconds") == 3);
  CHECK(observed("request_decode_time_seconds") == 3);
  CHECK(observed("request_time_per_output_token_seconds") == 2);
}

TEST_CASE("a sample that is ended by its caller, preemptions and sleep") {
  TinyModel model({.num_kv_blocks = 6});
  Engine engine(model.config);
  const RequestId first = engine.add_request(prompt_of(20, 1), sampled(1, 40));
  engine.add_request(prompt_of(20, 2), sampled(1, 40));
  for (int i = 0; i < 30; ++i) engine.step();
  CHECK(engine.abort_sample(first, 0));  // a stop string
  engine.sleep(2);
  CHECK(find(engine, "engine_sleep_state", "discard_all").value == 1);
  CHECK(find(engine, "num_requests_waiting").value == 1);
  engine.wake_up(true, false);
  CHECK(find(engine, "engine_sleep_state", "weights_offloaded").value == 1);
  engine.wake_up();
  CHECK(find(engine, "engine_sleep_state", "awake").value == 1);
  run_all(engine);
  CHECK(find(engine, "request_success", "stop").value == 1);
  CHECK(find(engine, "request_success", "length").value == 1);
  CHECK(find(engine, "num_preemptions").value == engine.stats().num_preemptions);
  CHECK(find(engine, "request_num_preemptions").sum == engine.stats().num_preemptions);
  CHECK(engine.stats().num_preemptions > 0);
}

}  // namespace
}  // namespace octavo
