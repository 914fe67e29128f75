#include "layers/rope_config.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"

namespace octavo {
namespace {

double read_number(const Json& rope, const char* key, std::optional<double> fallback) {
  const auto found = rope.find(key);
  if (found == rope.end() || found->is_null()) {
    if (fallback) return *fallback;
    throw LoadError(str_cat("config.json: rope scaling lacks '", key, "'; expected a number"));
  }
  if (!found->is_number() || !std::isfinite(found->get<double>()) || found->get<double>() <= 0) {
    throw LoadError(str_cat("config.json: rope '", key, "' is ", dump_json(*found),
                            "; expected a positive number"));
  }
  return found->get<double>();
}

RopeType read_type(const Json& rope) {
  const char* key = rope.contains("rope_type") ? "rope_type" : "type";
  const std::string name =
      rope.contains(key) && rope.at(key).is_string() ? rope.at(key).get<std::string>() : "default";
  if (name == "default") return RopeType::kDefault;
  if (name == "linear") return RopeType::kLinear;
  if (name == "dynamic") return RopeType::kDynamic;
  if (name == "yarn") return RopeType::kYarn;
  if (name == "llama3") return RopeType::kLlama3;
  throw NotSupported(
      str_cat("config.json: rope_type '", name,
              "' is not supported; expected default, linear, dynamic, yarn or llama3"));
}

double yarn_mscale(double scale, double mscale) {
  return scale <= 1.0 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0;
}

// The factor on cosines and sines of YaRN, inferred where the configuration does not give it.
float yarn_attention_factor(const Json& rope, double factor) {
  if (rope.contains("attention_factor") && !rope.at("attention_factor").is_null()) {
    return static_cast<float>(read_number(rope, "attention_factor", {}));
  }
  const bool both = rope.contains("mscale") && rope.contains("mscale_all_dim") &&
                    rope.at("mscale").is_number() && rope.at("mscale_all_dim").is_number() &&
                    rope.at("mscale") != 0 && rope.at("mscale_all_dim") != 0;
  if (!both) return static_cast<float>(yarn_mscale(factor, 1.0));
  return static_cast<float>(yarn_mscale(factor, rope.at("mscale").get<double>()) /
                            yarn_mscale(factor, rope.at("mscale_all_dim").get<double>()));
}

void read_yarn(const Json& rope, RopeConfig& result) {
  const bool has_factor = rope.contains("factor") && !rope.at("factor").is_null();
  result.factor = has_factor ? read_number(rope, "factor", {})
                             : static_cast<double>(result.max_positions) /
                                   static_cast<double>(result.original_max_positions);
  result.beta_fast = read_number(rope, "beta_fast", 32.0);
  result.beta_slow = read_number(rope, "beta_slow", 1.0);
  result.truncate = !rope.contains("truncate") || rope.at("truncate") != false;
  result.attention_factor = yarn_attention_factor(rope, result.factor);
}

// base ** (i / dim) for i = 0, 2, .. in float32.
std::vector<float> powers(double base, int64_t dim) {
  std::vector<float> result(static_cast<size_t>(dim / 2));
  for (int64_t i = 0; i < dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
    result[static_cast<size_t>(i)] = std::pow(static_cast<float>(base), exponent);
  }
  return result;
}

std::vector<float> yarn_frequencies(const RopeConfig& rope) {
  const double dim = static_cast<double>(rope.dim);
  const auto correction_dim = [&](double rotations) {
    return dim *
           std::log(static_cast<double>(rope.original_max_positions) /
                    (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(rope.theta));
  };
  double low = correction_dim(rope.beta_fast), high = correction_dim(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1.0);
  if (low == high) high += 0.001;  // as transformers, against a division by zero
  std::vector<float> result = powers(rope.theta, rope.dim);
  for (size_t i = 0; i < result.size(); ++i) {
    const float ramp = std::clamp(
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f,
        1.0f);
    const float extrapolation = 1.0f / result[i];
    const float interpolation = 1.0f / (static_cast<float>(rope.factor) * result[i]);
    const float keep = 1.0f - ramp;
    result[i] = interpolation * (1.0f - keep) + extrapolation * keep;
  }
  return result;
}

void scale_llama3(const RopeConfig& rope, std::vector<float>& frequencies) {
  const double length = static_cast<double>(rope.original_max_positions);
  const auto factor = static_cast<float>(rope.factor);
  const auto low_wavelength = static_cast<float>(length / rope.low_freq_factor);
  const auto high_wavelength = static_cast<float>(length / rope.high_freq_factor);
  for (float& frequency : frequencies) {
    const float wavelength = 2.0f * std::numbers::pi_v<float> / frequency;
    if (wavelength > low_wavelength) {
      frequency /= factor;
    } else if (wavelength >= high_wavelength) {
      const float smooth =
          (static_cast<float>(length) / wavelength - static_cast<float>(rope.low_freq_factor)) /
          static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
      frequency = (1.0f - smooth) * frequency / factor + smooth * frequency;
    }
  }
}

double dynamic_theta(const RopeConfig& rope, int64_t length) {
  const auto max_positions = static_cast<float>(rope.max_positions);
  const auto reached = static_cast<float>(std::max(length, rope.max_positions));
  const auto factor = static_cast<float>(rope.factor);
  const float growth = factor * reached / max_positions - (factor - 1.0f);
  return static_cast<float>(rope.theta) *
         std::pow(growth, static_cast<float>(rope.dim) / static_cast<float>(rope.dim - 2));
}

}  // namespace

int64_t RopeConfig::scaled_max_positions() const {
  const auto scaled = [this](int64_t positions) {
    return static_cast<int64_t>(static_cast<double>(positions) * std::max(factor, 1.0));
  };
  switch (type) {
    case RopeType::kLinear:
    case RopeType::kDynamic: return scaled(max_positions);
    case RopeType::kYarn: return std::max(max_positions, scaled(original_max_positions));
    case RopeType::kDefault:
    case RopeType::kLlama3: break;
  }
  return max_positions;
}

std::string RopeConfig::prefix_salt(int64_t prompt_len) const {
  return own_frequencies(prompt_len) ? str_cat("rope", prompt_len) : std::string();
}

RopeConfig read_rope_config(const Json& config, int64_t head_dim, int64_t max_positions) {
  const Json empty = Json::object();
  const Json* rope = &empty;
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (config.contains(key) && config.at(key).is_object()) {
      rope = &config.at(key);
      break;
    }
  }
  RopeConfig result;
  result.type = read_type(*rope);
  result.max_positions = max_positions;
  const Json& theta_from = rope->contains("rope_theta") ? *rope : config;
  result.theta = read_number(theta_from, "rope_theta", 10000.0);
  const Json& partial_from = rope->contains("partial_rotary_factor") ? *rope : config;
  const double partial = read_number(partial_from, "partial_rotary_factor", 1.0);
  result.dim = static_cast<int64_t>(static_cast<double>(head_dim) * partial);
  if (partial > 1.0 || result.dim < 2 || result.dim % 2 != 0) {
    throw LoadError(str_cat("config.json: rotary dimension ", result.dim, " of head_dim ", head_dim,
                            "; expected an even number, at least 2"));
  }
  if (result.type == RopeType::kDefault) return result;
  if (result.type == RopeType::kDynamic && result.dim < 4) {
    throw LoadError(
        "config.json: rope_type 'dynamic' with a rotary dimension of 2; expected 4 or more");
  }
  result.original_max_positions = static_cast<int64_t>(
      read_number(*rope, "original_max_position_embeddings", static_cast<double>(max_positions)));
  if (result.type == RopeType::kYarn) {
    read_yarn(*rope, result);
    return result;
  }
  result.factor = read_number(*rope, "factor", {});
  if (result.type == RopeType::kLlama3) {
    result.low_freq_factor = read_number(*rope, "low_freq_factor", {});
    result.high_freq_factor = read_number(*rope, "high_freq_factor", {});
    if (result.high_freq_factor <= result.low_freq_factor) {
      throw LoadError("config.json: rope high_freq_factor; expected more than low_freq_factor");
    }
  }
  return result;
}

std::vector<float> inverse_frequencies(const RopeConfig& rope, int64_t length) {
  if (rope.type == RopeType::kYarn) return yarn_frequencies(rope);
  const double theta = rope.type == RopeType::kDynamic ? dynamic_theta(rope, length) : rope.theta;
  std::vector<float> result = powers(theta, rope.dim);
  for (float& value : result) value = 1.0f / value;
  if (rope.type == RopeType::kLinear) {
    for (float& value : result) value /= static_cast<float>(rope.factor);
  }
  if (rope.type == RopeType::kLlama3) scale_llama3(rope, result);
  for (size_t i = 0; i < rope.frequency_divisors.size(); ++i)
    result[i] /= rope.frequency_divisors[i];
  return result;
}

}  // namespace octavo
