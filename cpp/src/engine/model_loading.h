// From a configuration to a model on a back end: at the engine's construction, and again, under its
// lock, for what it gave back while it slept.
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

// Reads the model's files again, for a runner that has released its model. The weights may have
// changed, the model may not: throws LoadError where its architecture, shape, size or dtype is
// another, OutOfMemory, and then the runner still has none.
void reload_model(const EngineConfig& config, LoadedModel& loaded);

// Allocates the KV cache of info.num_kv_blocks. Throws OutOfMemory that names every term.
void allocate_kv(LoadedModel& loaded);

}  // namespace octavo
