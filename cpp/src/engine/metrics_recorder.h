// The engine's figures for a monitoring system: counts and histograms of what has passed. Owned by
// the engine, written and read under its lock. Recording is a few additions and allocates nothing.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "octavo/engine.h"
#include "octavo/metrics.h"

namespace octavo {

// Observations, counted by the first bound that is not below them.
class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds);  // increasing; infinity comes after them

  void observe(double value);
  Metric metric(std::string_view name, std::string_view help) const;

 private:
  std::vector<double> bounds_;
  std::vector<int64_t> counts_;  // [bounds + 1], each without those before it
  double sum_ = 0;
};

// A request of which every sample has ended.
struct FinishedRequest {
  RequestTimes times;
  double ended = 0;  // of the same clock
  int32_t num_prompt_tokens = 0;
  int32_t num_cached_tokens = 0;
  bool prompt_computed = false;
  int32_t num_generated = 0;  // of all samples
  int32_t max_generated = 0;  // of the longest sample
  int32_t n = 1;
  std::optional<int32_t> max_tokens;  // what the request asked for
  FinishReason reason = FinishReason::kNone;
};

class MetricsRecorder {
 public:
  MetricsRecorder(const ModelInfo& info, bool enable_prefix_caching);

  void on_step(int32_t num_tokens);  // rows of the batch
  void on_prompt_computed(int32_t num_tokens, int32_t num_cached_tokens);
  void on_first_token(const RequestTimes& times);  // of the request
  // A later token of a sample, seconds after the one before.
  void on_next_token(double interval);
  void on_finished(const FinishedRequest& request);

  // All figures by vLLM's names. What `stats` has is taken from there.
  std::vector<Metric> metrics(const EngineStats& stats, int32_t sleep_level) const;

 private:
  // The order of the table in metrics_recorder.cc, which names them.
  enum Series : uint8_t {
    kTimeToFirstToken,
    kInterTokenLatency,
    kTimePerOutputToken,
    kE2eLatency,
    kQueueTime,
    kInferenceTime,
    kPrefillTime,
    kDecodeTime,
    kPromptTokens,
    kGenerationTokens,
    kMaxNumGenerationTokens,
    kParamsN,
    kParamsMaxTokens,
    kIterationTokens,
    kNumPreemptions,
    kPrefillComputedTokens,
    kNumSeries,
  };
  struct SeriesInfo;
  static const SeriesInfo kSeriesInfo[kNumSeries];
  static constexpr size_t kNumReasons = static_cast<size_t>(FinishReason::kRepetition) + 1;

  void observe_times(const FinishedRequest& request);
  void append_gauges(const EngineStats& stats, int32_t sleep_level, std::vector<Metric>& out) const;
  void append_counters(const EngineStats& stats, std::vector<Metric>& out) const;

  std::vector<std::pair<std::string, std::string>> cache_config_;  // labels
  std::vector<Histogram> series_;                                  // [kNumSeries]
  int64_t num_prompt_tokens_ = 0;                                  // of computed prompts
  int64_t num_cached_tokens_ = 0;                                  // of them
  std::array<int64_t, kNumReasons> num_finished_{};                // by FinishReason
};

}  // namespace octavo
