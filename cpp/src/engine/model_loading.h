// From a configuration to a model on a back end. Used once, by the engine's constructor.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "octavo/engine.h"
#include "runner/model_runner.h"

namespace octavo {

// The engine's configuration with every default filled in.
struct LoadedModel {
  std::unique_ptr<Backend> backend;     // destroyed after the runner
  std::unique_ptr<ModelRunner> runner;  // with its KV cache allocated
  ModelInfo info;
  int32_t max_num_seqs = 0;
  int32_t max_num_batched_tokens = 0;
  std::vector<int32_t> eos_token_ids;  // of the model's configuration; the first is its own
};

LoadedModel load_model(const EngineConfig& config);

}  // namespace octavo
