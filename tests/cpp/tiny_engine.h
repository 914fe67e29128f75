// An engine on a tiny model with random weights, for the tests of what surrounds a model.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "octavo/engine.h"
#include "temp_dir.h"

namespace octavo::test {

struct TinyModel {
  static constexpr int32_t kVocab = 97, kEos = 96;

  explicit TinyModel(EngineConfig engine_config = {}) : config(std::move(engine_config)) {
    dir.write("config.json", R"({
      "architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 48,
      "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
      "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
      "eos_token_id": 96, "torch_dtype": "float32"})");
    config.model = dir.path();
    config.load_format = "dummy";
    config.dtype = "float32";
    config.num_threads = 2;
  }
  TempDir dir;
  EngineConfig config;
};

inline std::vector<int32_t> prompt_of(int32_t length, int32_t first) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < length; ++i) ids.push_back((first * 31 + i * 7) % 96);
  return ids;
}

// What each sample of each request produced, put together.
using Outputs = std::map<std::pair<RequestId, int32_t>, RequestOutput>;

inline Outputs run_all(Engine& engine) {
  Outputs outputs;
  while (engine.has_unfinished_requests()) {
    for (RequestOutput& output : engine.step()) {
      const std::pair key(output.request_id, output.sample_index);
      std::vector<int32_t> tokens = std::move(outputs[key].new_token_ids);
      tokens.insert(tokens.end(), output.new_token_ids.begin(), output.new_token_ids.end());
      outputs[key] = std::move(output);
      outputs[key].new_token_ids = std::move(tokens);
    }
  }
  return outputs;
}

}  // namespace octavo::test
