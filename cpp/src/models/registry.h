// Which architectures there are: one line each in registry.cc.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "layers/weight_loader.h"
#include "models/model.h"

namespace octavo {

// What the caller decides about a model that is built.
struct ModelOptions {
  int64_t max_model_len = 0;     // 0: what the configuration says
  int64_t max_batch_tokens = 1;  // rows of one step, at most
  int64_t max_num_seqs = 1;      // sequences of one step, each with at most max_model_len rows
};

// Builds the model that the loader's checkpoint names. Throws NotSupported that lists the known
// architectures, LoadError, or InvalidArgument when max_model_len is beyond the model's positions.
std::unique_ptr<Model> make_model(WeightLoader& loader, const ModelOptions& options);

std::vector<std::string_view> known_architectures();

// Defined by each architecture's file.
std::unique_ptr<Model> make_llama(WeightLoader& loader, const ModelOptions& options);
std::unique_ptr<Model> make_opt(WeightLoader& loader, const ModelOptions& options);
std::unique_ptr<Model> make_gpt2(WeightLoader& loader, const ModelOptions& options);

}  // namespace octavo
