#include "models/config_reader.h"

#include <cmath>
#include <limits>

#include "base/check.h"

namespace octavo {

bool ConfigReader::has(const char* key) const {
  const auto found = config_.find(key);
  return found != config_.end() && !found->is_null();
}

int64_t ConfigReader::count(const char* key) const {
  if (!has(key)) throw LoadError(str_cat("config.json: '", key, "' is missing; expected a count"));
  const Json& value = config_.at(key);
  constexpr int64_t kLimit = std::numeric_limits<int32_t>::max();
  const bool fits = value.is_number_unsigned()
                        ? value.get<uint64_t>() <= static_cast<uint64_t>(kLimit)
                        : value.is_number_integer() && value.get<int64_t>() <= kLimit;
  if (!fits || value.get<int64_t>() < 1) {
    throw LoadError(str_cat("config.json: '", key, "' is ", dump_json(value),
                            "; expected an integer from 1 to 2147483647"));
  }
  return value.get<int64_t>();
}

int64_t ConfigReader::count_or(const char* key, int64_t fallback) const {
  return has(key) ? count(key) : fallback;
}

double ConfigReader::positive_or(const char* key, double fallback) const {
  if (!has(key)) return fallback;
  const Json& value = config_.at(key);
  if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() <= 0) {
    throw LoadError(
        str_cat("config.json: '", key, "' is ", dump_json(value), "; expected a positive number"));
  }
  return value.get<double>();
}

bool ConfigReader::flag_or(const char* key, bool fallback) const {
  if (!has(key)) return fallback;
  if (!config_.at(key).is_boolean()) {
    throw LoadError(str_cat("config.json: '", key, "' is ", dump_json(config_.at(key)),
                            "; expected true or false"));
  }
  return config_.at(key).get<bool>();
}

Activation ConfigReader::activation_or(const char* key, const char* fallback) const {
  const Json value = has(key) ? config_.at(key) : Json(fallback);
  if (value == "relu") return Activation::kRelu;
  if (value == "silu" || value == "swish") return Activation::kSilu;
  if (value == "gelu") return Activation::kGelu;
  if (value == "gelu_new" || value == "gelu_pytorch_tanh" || value == "gelu_fast") {
    return Activation::kGeluTanh;
  }
  throw NotSupported(str_cat("config.json: '", key, "' is ", dump_json(value),
                             "; expected relu, silu, gelu or gelu_new"));
}

void check_divides(const char* total_key, int64_t total, const char* parts_key, int64_t parts) {
  if (total % parts != 0) {
    throw LoadError(str_cat("config.json: '", total_key, "' is ", total,
                            "; expected a multiple of '", parts_key, "', ", parts));
  }
}

}  // namespace octavo
