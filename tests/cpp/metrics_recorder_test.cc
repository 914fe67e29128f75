// What the recorder is told and what it shows.
#include "engine/metrics_recorder.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

namespace octavo {
namespace {

using Labels = std::vector<std::pair<std::string, std::string>>;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

ModelInfo small_model() {
  ModelInfo info;
  info.kv_cache_dtype = "bfloat16";
  info.max_model_len = 250;
  info.num_kv_blocks = 40;
  info.block_size = 16;
  return info;
}

struct Recorder {
  MetricsRecorder recorder{small_model(), true};
  EngineStats stats;
  int32_t sleep_level = 0;

  Metric get(const std::string& name, const Labels& labels = {}) const {
    for (Metric& metric : recorder.metrics(stats, sleep_level)) {
      if (metric.name == name && metric.labels == labels) return std::move(metric);
    }
    FAIL("no metric ", name);
    return {};
  }
  double finished(const char* reason) const {
    return get("request_success", {{"finished_reason", reason}}).value;
  }
};

std::vector<double> bounds(const Metric& metric) {
  std::vector<double> all;
  for (const auto& [bound, count] : metric.buckets) all.push_back(bound);
  return all;
}

// The observations at or below `bound`, which must be one of the bounds.
int64_t count_to(const Metric& metric, double bound) {
  for (const auto& [each, count] : metric.buckets) {
    if (each == bound) return count;
  }
  FAIL("no bound ", bound, " in ", metric.name);
  return -1;
}

TEST_CASE("a histogram counts up to and with each bound") {
  Histogram histogram({1, 2.5, 10});
  for (const double value : {0.0, 1.0, 1.5, 2.5, 2.500001, 10.0, 11.0, 1e9}) {
    histogram.observe(value);
  }
  const Metric metric = histogram.metric("name", "help");
  CHECK(metric.kind == MetricKind::kHistogram);
  CHECK(metric.name == "name");
  CHECK(metric.help == "help");
  CHECK(metric.count == 8);
  CHECK(metric.sum == doctest::Approx(1e9 + 28.500001).epsilon(1e-15));
  using Buckets = std::vector<std::pair<double, int64_t>>;
  CHECK(metric.buckets == Buckets{{1, 2}, {2.5, 4}, {10, 6}, {kInfinity, 8}});
}

TEST_CASE("the names are vLLM's, each once with its labels") {
  const std::map<MetricKind, std::set<std::string>> expected = {
      {MetricKind::kGauge,
       {"num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "engine_sleep_state",
        "cache_config_info"}},
      {MetricKind::kCounter,
       {"prefix_cache_queries", "prefix_cache_hits", "num_preemptions", "prompt_tokens",
        "prompt_tokens_cached", "generation_tokens", "request_success"}},
      {MetricKind::kHistogram,
       {"time_to_first_token_seconds", "inter_token_latency_seconds",
        "request_time_per_output_token_seconds", "e2e_request_latency_seconds",
        "request_queue_time_seconds", "request_inference_time_seconds",
        "request_prefill_time_seconds", "request_decode_time_seconds", "request_prompt_tokens",
        "request_generation_tokens", "request_max_num_generation_tokens", "request_params_n",
        "request_params_max_tokens", "iteration_tokens_total", "request_num_preemptions",
        "request_prefill_kv_computed_tokens"}}};
  std::map<MetricKind, std::set<std::string>> names;
  std::set<std::pair<std::string, Labels>> series;
  for (const Metric& metric : Recorder().recorder.metrics({}, 0)) {
    names[metric.kind].insert(metric.name);
    CHECK(series.insert({metric.name, metric.labels}).second);
    CHECK_FALSE(metric.help.empty());
    CHECK(metric.buckets.empty() == (metric.kind != MetricKind::kHistogram));
    CHECK(metric.count == 0);
    CHECK(metric.sum == 0);
  }
  CHECK(names == expected);
}

TEST_CASE("the bounds are vLLM's and end in infinity") {
  const Recorder recorder;
  const auto of = [&](const char* name) { return bounds(recorder.get(name)); };
  using B = std::vector<double>;
  CHECK(of("time_to_first_token_seconds") == B{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08,     0.1,
                                               0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,      10,
                                               20,    40,    80,   160,  640,  2560, kInfinity});
  const B intervals = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                       0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80,  kInfinity};
  CHECK(of("inter_token_latency_seconds") == intervals);
  CHECK(of("request_time_per_output_token_seconds") == intervals);
  const B latencies = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,   20,
                       30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680, kInfinity};
  for (const char* name : {"e2e_request_latency_seconds", "request_queue_time_seconds",
                           "request_inference_time_seconds", "request_prefill_time_seconds",
                           "request_decode_time_seconds"}) {
    CAPTURE(name);
    CHECK(of(name) == latencies);
  }
  const B counts = {1, 2, 5, 10, 20, 50, 100, 200, kInfinity};  // max_model_len is 250
  for (const char* name :
       {"request_prompt_tokens", "request_generation_tokens", "request_max_num_generation_tokens",
        "request_params_max_tokens", "request_prefill_kv_computed_tokens"}) {
    CAPTURE(name);
    CHECK(of(name) == counts);
  }
  CHECK(of("iteration_tokens_total") ==
        B{1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, kInfinity});
  CHECK(of("request_params_n") == B{1, 2, 5, 10, 20, kInfinity});
  CHECK(of("request_num_preemptions") == B{1, 2, 3, 4, 5, 10, 20, kInfinity});

  ModelInfo exact = small_model();
  exact.max_model_len = 100;
  for (const Metric& metric : MetricsRecorder(exact, true).metrics({}, 0)) {
    if (metric.name == "request_prompt_tokens") {
      CHECK(bounds(metric) == B{1, 2, 5, 10, 20, 50, 100, kInfinity});
    }
  }
}

TEST_CASE("a finished request's times and sizes") {
  Recorder recorder;
  const RequestTimes times{.queued = 1000,
                           .scheduled = 1000.4,
                           .first_token = 1001.4,
                           .last_token = 1004.4,
                           .num_preemptions = 2};
  recorder.recorder.on_first_token(times);
  recorder.recorder.on_finished({.times = times,
                                 .ended = 1004.4,
                                 .num_prompt_tokens = 100,
                                 .num_cached_tokens = 48,
                                 .prompt_computed = true,
                                 .num_generated = 50,
                                 .max_generated = 31,
                                 .n = 3,
                                 .max_tokens = 60,
                                 .reason = FinishReason::kLength});
  const auto check = [&](const char* name, double value) {
    CAPTURE(name);
    const Metric metric = recorder.get(name);
    CHECK(metric.count == 1);
    CHECK(metric.sum == doctest::Approx(value).epsilon(1e-9));
    for (const auto& [bound, count] : metric.buckets) CHECK(count == (metric.sum <= bound));
  };
  check("time_to_first_token_seconds", 1.4);
  check("request_queue_time_seconds", 0.4);
  check("request_prefill_time_seconds", 1.0);
  check("request_decode_time_seconds", 3.0);
  check("request_inference_time_seconds", 4.0);
  check("e2e_request_latency_seconds", 4.4);
  check("request_time_per_output_token_seconds", 0.1);
  check("request_prompt_tokens", 100);
  check("request_prefill_kv_computed_tokens", 52);
  check("request_generation_tokens", 50);
  check("request_max_num_generation_tokens", 31);
  check("request_params_n", 3);
  check("request_params_max_tokens", 60);
  check("request_num_preemptions", 2);
  CHECK(recorder.finished("length") == 1);
  CHECK(recorder.get("inter_token_latency_seconds").count == 0);
}

TEST_CASE("what a request did not reach is not observed") {
  Recorder recorder;
  const auto count = [&](const char* name) { return recorder.get(name).count; };
  SUBCASE("aborted: no times") {
    recorder.recorder.on_finished(
        {.times = {.queued = 5, .scheduled = 6, .first_token = 7, .last_token = 8},
         .ended = 9,
         .num_generated = 2,
         .max_generated = 2,
         .reason = FinishReason::kAbort});
    CHECK(count("e2e_request_latency_seconds") == 0);
    CHECK(count("request_decode_time_seconds") == 0);
    CHECK(count("request_generation_tokens") == 1);
    CHECK(count("request_params_max_tokens") == 0);  // it had none
    CHECK(recorder.finished("abort") == 1);
  }
  SUBCASE("scored, without a token") {
    recorder.recorder.on_finished({.times = {.queued = 5, .scheduled = 6},
                                   .ended = 8,
                                   .num_prompt_tokens = 20,
                                   .prompt_computed = true,
                                   .max_tokens = 0,
                                   .reason = FinishReason::kLength});
    CHECK(recorder.get("e2e_request_latency_seconds").sum == 3);
    CHECK(recorder.get("request_inference_time_seconds").sum == 2);
    CHECK(count("request_prefill_time_seconds") == 0);
    CHECK(recorder.get("request_prefill_kv_computed_tokens").sum == 20);
    CHECK(count("request_params_max_tokens") == 1);
  }
  SUBCASE("failed before its first step") {
    recorder.recorder.on_finished(
        {.times = {.queued = 5}, .ended = 6, .reason = FinishReason::kError});
    CHECK(count("e2e_request_latency_seconds") == 1);
    CHECK(count("request_queue_time_seconds") == 0);
    CHECK(count("request_prefill_kv_computed_tokens") == 0);
    CHECK(recorder.finished("error") == 1);
  }
  SUBCASE("one token has no time per token") {
    recorder.recorder.on_finished(
        {.times = {.queued = 5, .scheduled = 6, .first_token = 7, .last_token = 7},
         .ended = 7,
         .num_generated = 3,
         .max_generated = 1,
         .n = 3,
         .reason = FinishReason::kStop});
    CHECK(count("request_decode_time_seconds") == 1);
    CHECK(count("request_time_per_output_token_seconds") == 0);
    CHECK(recorder.finished("stop") == 1);
  }
}

TEST_CASE("steps, prompts and tokens are counted") {
  Recorder recorder;
  for (const int32_t tokens : {1, 8, 9, 20000}) recorder.recorder.on_step(tokens);
  const Metric steps = recorder.get("iteration_tokens_total");
  CHECK(steps.count == 4);
  CHECK(steps.sum == 20018);
  CHECK(count_to(steps, 1) == 1);
  CHECK(count_to(steps, 8) == 2);
  CHECK(count_to(steps, 16384) == 3);

  recorder.recorder.on_prompt_computed(100, 32);
  recorder.recorder.on_prompt_computed(7, 0);
  CHECK(recorder.get("prompt_tokens").value == 107);
  CHECK(recorder.get("prompt_tokens_cached").value == 32);

  for (const double interval : {0.02, 0.03, 100.0}) recorder.recorder.on_next_token(interval);
  const Metric intervals = recorder.get("inter_token_latency_seconds");
  CHECK(intervals.count == 3);
  CHECK(count_to(intervals, 0.025) == 1);
  CHECK(count_to(intervals, 0.05) == 2);
  CHECK(count_to(intervals, 80) == 2);
}

TEST_CASE("gauges and the counters of the stats") {
  Recorder recorder;
  recorder.stats = {.num_running = 3,
                    .num_waiting = 4,
                    .num_blocks_used = 10,
                    .num_blocks_total = 40,
                    .num_preemptions = 5,
                    .num_generated_tokens = 6,
                    .prefix_cache_queries = 70,
                    .prefix_cache_hits = 60};
  CHECK(recorder.get("num_requests_running").value == 3);
  CHECK(recorder.get("num_requests_waiting").value == 4);
  CHECK(recorder.get("kv_cache_usage_perc").value == 0.25);
  CHECK(recorder.get("num_preemptions").value == 5);
  CHECK(recorder.get("generation_tokens").value == 6);
  CHECK(recorder.get("prefix_cache_queries").value == 70);
  CHECK(recorder.get("prefix_cache_hits").value == 60);
  CHECK(recorder
            .get("cache_config_info", {{"block_size", "16"},
                                       {"cache_dtype", "bfloat16"},
                                       {"enable_prefix_caching", "True"},
                                       {"num_gpu_blocks", "40"}})
            .value == 1);
  for (recorder.sleep_level = 0; recorder.sleep_level < 3; ++recorder.sleep_level) {
    const auto state = [&](const char* name) {
      return recorder.get("engine_sleep_state", {{"sleep_state", name}}).value;
    };
    CHECK(state("awake") == (recorder.sleep_level == 0));
    CHECK(state("weights_offloaded") == (recorder.sleep_level == 1));
    CHECK(state("discard_all") == (recorder.sleep_level == 2));
  }
  for (const char* reason : {"stop", "length", "abort", "error", "repetition"}) {
    CHECK(recorder.finished(reason) == 0);
  }
}

}  // namespace
}  // namespace octavo
