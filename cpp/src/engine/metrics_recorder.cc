#include "engine/metrics_recorder.h"

#include <algorithm>
#include <limits>

namespace octavo {
namespace {

// The bounds are vLLM's, so that its dashboards and alerts fit.
using Bounds = std::vector<double>;

Bounds first_token_bounds(int64_t) {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
          1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
}

Bounds token_interval_bounds(int64_t) {
  return {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
          0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80};
}

Bounds latency_bounds(int64_t) {
  return {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
          30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
}

// 1, 2, 5, 10, 20, 50, ... up to the longest context.
Bounds token_count_bounds(int64_t max_model_len) {
  Bounds bounds;
  for (int64_t power = 1;; power *= 10) {
    for (const int64_t digit : {1, 2, 5}) {
      if (digit * power > max_model_len) return bounds;
      bounds.push_back(static_cast<double>(digit * power));
    }
  }
}

Bounds step_bounds(int64_t) {
  return {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
}

Bounds sample_count_bounds(int64_t) { return {1, 2, 5, 10, 20}; }

Bounds preemption_bounds(int64_t) { return {1, 2, 3, 4, 5, 10, 20}; }

Metric scalar(MetricKind kind, std::string name, std::string help, double value) {
  return {.kind = kind, .name = std::move(name), .help = std::move(help), .value = value};
}

Metric gauge(std::string name, std::string help, int64_t value) {
  return scalar(MetricKind::kGauge, std::move(name), std::move(help), static_cast<double>(value));
}

Metric counter(std::string name, std::string help, int64_t value) {
  return scalar(MetricKind::kCounter, std::move(name), std::move(help), static_cast<double>(value));
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

void Histogram::observe(double value) {
  ++counts_[static_cast<size_t>(std::ranges::lower_bound(bounds_, value) - bounds_.begin())];
  sum_ += value;
}

Metric Histogram::metric(std::string_view name, std::string_view help) const {
  Metric metric{.kind = MetricKind::kHistogram,
                .name = std::string(name),
                .help = std::string(help),
                .sum = sum_};
  metric.buckets.reserve(counts_.size());
  for (size_t i = 0; i < counts_.size(); ++i) {
    metric.count += counts_[i];
    metric.buckets.emplace_back(
        i < bounds_.size() ? bounds_[i] : std::numeric_limits<double>::infinity(), metric.count);
  }
  return metric;
}

struct MetricsRecorder::SeriesInfo {
  const char* name;
  const char* help;
  Bounds (*bounds)(int64_t max_model_len);
};

const MetricsRecorder::SeriesInfo MetricsRecorder::kSeriesInfo[kNumSeries] = {
    {"time_to_first_token_seconds", "From submission to a request's first token.",
     first_token_bounds},
    {"inter_token_latency_seconds", "Between two tokens of a sample.", token_interval_bounds},
    {"request_time_per_output_token_seconds",
     "Mean time between the tokens of a request, after the first.", token_interval_bounds},
    {"e2e_request_latency_seconds", "From submission to a request's end.", latency_bounds},
    {"request_queue_time_seconds", "From submission to a request's first step.", latency_bounds},
    {"request_inference_time_seconds", "From a request's first step to its end.", latency_bounds},
    {"request_prefill_time_seconds", "From a request's first step to its first token.",
     latency_bounds},
    {"request_decode_time_seconds", "From a request's first token to its last.", latency_bounds},
    {"request_prompt_tokens", "Prompt tokens of a request.", token_count_bounds},
    {"request_generation_tokens", "Generated tokens of a request.", token_count_bounds},
    {"request_max_num_generation_tokens", "Generated tokens of a request's longest sample.",
     token_count_bounds},
    {"request_params_n", "The parameter n of a request.", sample_count_bounds},
    {"request_params_max_tokens", "The parameter max_tokens of a request that has one.",
     token_count_bounds},
    {"iteration_tokens_total", "Tokens computed in a step.", step_bounds},
    {"request_num_preemptions", "Preemptions of a request's samples.", preemption_bounds},
    {"request_prefill_kv_computed_tokens",
     "Prompt tokens of a request that the prefix cache did not supply.", token_count_bounds},
};

MetricsRecorder::MetricsRecorder(const ModelInfo& info, bool enable_prefix_caching)
    : cache_config_({{"block_size", std::to_string(info.block_size)},
                     {"cache_dtype", info.kv_cache_dtype},
                     {"enable_prefix_caching", enable_prefix_caching ? "True" : "False"},
                     {"num_gpu_blocks", std::to_string(info.num_kv_blocks)}}) {
  series_.reserve(kNumSeries);
  for (const SeriesInfo& series : kSeriesInfo) {
    series_.emplace_back(series.bounds(info.max_model_len));
  }
}

void MetricsRecorder::on_step(int32_t num_tokens) { series_[kIterationTokens].observe(num_tokens); }

void MetricsRecorder::on_prompt_computed(int32_t num_tokens, int32_t num_cached_tokens) {
  num_prompt_tokens_ += num_tokens;
  num_cached_tokens_ += num_cached_tokens;
}

void MetricsRecorder::on_first_token(const RequestTimes& times) {
  series_[kTimeToFirstToken].observe(times.first_token - times.queued);
}

void MetricsRecorder::on_next_token(double interval) {
  series_[kInterTokenLatency].observe(interval);
}

void MetricsRecorder::on_finished(const FinishedRequest& request) {
  ++num_finished_.at(static_cast<size_t>(request.reason));
  series_[kPromptTokens].observe(request.num_prompt_tokens);
  series_[kGenerationTokens].observe(request.num_generated);
  series_[kMaxNumGenerationTokens].observe(request.max_generated);
  series_[kParamsN].observe(request.n);
  series_[kNumPreemptions].observe(request.times.num_preemptions);
  if (request.prompt_computed) {
    series_[kPrefillComputedTokens].observe(request.num_prompt_tokens - request.num_cached_tokens);
  }
  if (request.max_tokens) series_[kParamsMaxTokens].observe(*request.max_tokens);
  // How long one took that its caller gave up says nothing about the engine.
  if (request.reason != FinishReason::kAbort) observe_times(request);
}

void MetricsRecorder::observe_times(const FinishedRequest& request) {
  const RequestTimes& times = request.times;
  series_[kE2eLatency].observe(request.ended - times.queued);
  if (times.scheduled == 0) return;
  series_[kQueueTime].observe(times.scheduled - times.queued);
  series_[kInferenceTime].observe(request.ended - times.scheduled);
  if (times.first_token == 0) return;
  series_[kPrefillTime].observe(times.first_token - times.scheduled);
  const double decode = times.last_token - times.first_token;
  series_[kDecodeTime].observe(decode);
  if (request.max_generated > 1) {
    series_[kTimePerOutputToken].observe(decode / (request.max_generated - 1));
  }
}

std::vector<Metric> MetricsRecorder::metrics(const EngineStats& stats, int32_t sleep_level) const {
  std::vector<Metric> out;
  append_gauges(stats, sleep_level, out);
  append_counters(stats, out);
  for (size_t i = 0; i < series_.size(); ++i) {
    out.push_back(series_[i].metric(kSeriesInfo[i].name, kSeriesInfo[i].help));
  }
  return out;
}

void MetricsRecorder::append_gauges(const EngineStats& stats, int32_t sleep_level,
                                    std::vector<Metric>& out) const {
  out.push_back(
      gauge("num_requests_running", "Samples that take part in steps.", stats.num_running));
  out.push_back(gauge("num_requests_waiting",
                      "Samples that wait for their first step, or to be "
                      "computed again after a preemption.",
                      stats.num_waiting));
  const double used = static_cast<double>(stats.num_blocks_used);
  const double total = static_cast<double>(std::max<int64_t>(stats.num_blocks_total, 1));
  out.push_back(scalar(MetricKind::kGauge, "kv_cache_usage_perc",
                       "The part of the KV cache's blocks that is in use; 1 is all.",
                       used / total));
  constexpr const char* kStates[] = {"awake", "weights_offloaded", "discard_all"};
  for (int32_t level = 0; level < 3; ++level) {
    out.push_back(gauge("engine_sleep_state",
                        "1 for the state that the engine is in: awake, asleep at level 1 "
                        "(weights_offloaded), or at level 2 (discard_all).",
                        level == sleep_level ? 1 : 0));
    out.back().labels = {{"sleep_state", kStates[level]}};
  }
  out.push_back(gauge("cache_config_info", "The KV cache's configuration, as labels.", 1));
  out.back().labels = cache_config_;
}

void MetricsRecorder::append_counters(const EngineStats& stats, std::vector<Metric>& out) const {
  out.push_back(counter("prefix_cache_queries", "Tokens looked up in the prefix cache.",
                        stats.prefix_cache_queries));
  out.push_back(
      counter("prefix_cache_hits", "Tokens found in the prefix cache.", stats.prefix_cache_hits));
  out.push_back(
      counter("num_preemptions", "Times that a sample lost its blocks.", stats.num_preemptions));
  out.push_back(counter("prompt_tokens", "Tokens of the prompts that have been computed.",
                        num_prompt_tokens_));
  out.push_back(counter("prompt_tokens_cached",
                        "Tokens of these prompts that the prefix cache supplied.",
                        num_cached_tokens_));
  out.push_back(counter("generation_tokens", "Generated tokens.", stats.num_generated_tokens));
  for (size_t reason = 1; reason < num_finished_.size(); ++reason) {
    out.push_back(
        counter("request_success", "Requests that ended, by reason.", num_finished_[reason]));
    out.back().labels = {
        {"finished_reason", std::string(finish_reason_name(static_cast<FinishReason>(reason)))}};
  }
}

}  // namespace octavo
