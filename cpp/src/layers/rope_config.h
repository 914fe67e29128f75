// The rotary part of a model's configuration, and the frequencies that it means. Formulas are those
// of transformers' modeling_rope_utils, in float32 like there, so that positions rotate alike.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace octavo {

enum class RopeType : uint8_t {
  kDefault,
  kLinear,   // positions divided by factor
  kDynamic,  // NTK: the base grows with the length beyond max_positions
  kYarn,     // Peng et al. 2023, "YaRN: Efficient Context Window Extension"
  kLlama3,   // Llama 3.1: low frequencies divided by factor, a smooth band between
};

struct RopeConfig {
  RopeType type = RopeType::kDefault;
  int64_t dim = 0;            // rotated elements of a head, even
  int64_t max_positions = 0;  // max_position_embeddings
  double theta = 10000.0;
  double factor = 1.0;
  int64_t original_max_positions = 0;  // yarn, llama3
  double low_freq_factor = 1.0;        // llama3
  double high_freq_factor = 4.0;       // llama3
  double beta_fast = 32.0;             // yarn
  double beta_slow = 1.0;              // yarn
  bool truncate = true;                // yarn
  float attention_factor = 1.0f;       // multiplies cosines and sines

  // Factors that divide the default frequencies, [dim / 2]; GGUF files of Llama 3.1 carry them
  // instead of the parameters of kLlama3.
  std::vector<float> frequency_divisors;

  // The context length for which the scaling is meant.
  int64_t scaled_max_positions() const;

  // A prompt of this length is rotated by frequencies that no shorter or longer one has.
  bool own_frequencies(int64_t prompt_len) const {
    return type == RopeType::kDynamic && prompt_len > max_positions;
  }
  // Keys of equal tokens differ between prompts of such lengths, so they must not share a prefix:
  // an additional cache salt, or empty.
  std::string prefix_salt(int64_t prompt_len) const;
};

// Reads rope_parameters (transformers 5) or rope_theta with rope_scaling. Throws LoadError that
// names the key for a value out of range, NotSupported for an unknown type.
RopeConfig read_rope_config(const Json& config, int64_t head_dim, int64_t max_positions);

// The inverse frequencies, [dim / 2], for a sequence of `length` tokens (only kDynamic looks at
// it).
std::vector<float> inverse_frequencies(const RopeConfig& rope, int64_t length);

}  // namespace octavo
