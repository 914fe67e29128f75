// The engine's figures for a monitoring system, in the form of Prometheus: counters, gauges and
// histograms by name. Plain values, copied out of the engine.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "octavo/export.h"

namespace octavo {

enum class MetricKind : uint8_t { kCounter, kGauge, kHistogram };

struct OCTAVO_EXPORT Metric {
  MetricKind kind = MetricKind::kGauge;
  std::string name;  // vLLM's, without prefix and without the "_total" of a counter
  std::string help;
  std::vector<std::pair<std::string, std::string>> labels;
  double value = 0;  // of a counter or a gauge
  // Of a histogram: the number of observations up to and with each bound, the last of which is
  // infinity; their number and their sum.
  std::vector<std::pair<double, int64_t>> buckets;
  int64_t count = 0;
  double sum = 0;
};

}  // namespace octavo
