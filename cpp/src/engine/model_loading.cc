#include "engine/model_loading.h"

#include <algorithm>

#include "backend/registry.h"
#include "base/check.h"
#include "engine/memory_plan.h"
#include "quant/integer_block.h"
#include "weights/checkpoint.h"

namespace octavo {
namespace {

constexpr int32_t kBlockSize = 16;  // tokens: an octavo has sixteen pages

void validate(const EngineConfig& config) {
  const auto at_least = [](const char* name, int64_t value, int64_t least) {
    if (value < least) {
      throw InvalidArgument(str_cat(name, ": ", value, "; expected at least ", least));
    }
  };
  if (config.model.empty()) throw InvalidArgument("model: empty; expected a path");
  at_least("max_model_len", config.max_model_len, 0);
  at_least("max_num_seqs", config.max_num_seqs, 1);
  at_least("max_num_batched_tokens", config.max_num_batched_tokens, 0);
  at_least("kv_cache_memory_bytes", config.kv_cache_memory_bytes, 0);
  at_least("num_kv_blocks", config.num_kv_blocks, 0);
  at_least("num_threads", config.num_threads, 0);
  at_least("max_logprobs", config.max_logprobs, -1);
  if (!(config.gpu_memory_utilization > 0 && config.gpu_memory_utilization <= 1)) {
    throw InvalidArgument(str_cat("gpu_memory_utilization: ", config.gpu_memory_utilization,
                                  "; expected more than 0 and at most 1"));
  }
  constexpr std::string_view kModes[] = {"raw_logprobs", "processed_logprobs", "raw_logits",
                                         "processed_logits"};
  if (std::ranges::find(kModes, config.logprobs_mode) == std::end(kModes)) {
    throw InvalidArgument(str_cat("logprobs_mode: '", config.logprobs_mode,
                                  "'; expected raw_logprobs, processed_logprobs, raw_logits or "
                                  "processed_logits"));
  }
}

// auto: bfloat16 checkpoints stay, all others become float16, as in vLLM.
DType choose_dtype(const std::string& name, Scheme main_scheme) {
  if (name != "auto") return floating_dtype_from_name(name, "dtype");
  return main_scheme == Scheme::kBF16 ? DType::kBFloat16 : DType::kFloat16;
}

// What the weights become, and the name of the quantization that is there.
struct TargetChoice {
  WeightTarget target;
  std::string_view quantization;
};

TargetChoice choose_target(const EngineConfig& config, const Checkpoint& checkpoint) {
  const Scheme scheme = checkpoint.main_scheme();
  const DType dtype = choose_dtype(config.dtype, scheme);
  const std::string& wanted = config.quantization;
  if (wanted == "int8") return {{dtype, IntegerWeights::kInt8}, "int8"};
  if (wanted != "auto" && wanted != "gguf" && wanted != "none") {
    throw InvalidArgument(
        str_cat("quantization: '", wanted, "'; expected auto, gguf, int8 or none"));
  }
  const bool keep = wanted == "gguf" || (wanted == "auto" && config.dtype == "auto");
  if (wanted == "gguf" && !has_integers(scheme)) {
    throw InvalidArgument(str_cat("quantization: 'gguf', and most of the model's weights are ",
                                  scheme_info(scheme).name,
                                  "; expected a GGUF file with quantized weights"));
  }
  if (!keep || !has_integers(scheme)) return {dtype, "none"};
  return {{dtype, IntegerWeights::kKeep}, "gguf"};
}

// auto: as dtype, but bfloat16 beside weights that are integers, which the fastest kernels read.
DType choose_kv_dtype(const EngineConfig& config, const WeightTarget& target) {
  const std::string& name = config.kv_cache_dtype;
  if (name != "auto") return cache_dtype_from_name(name, "kv_cache_dtype");
  if (config.dtype == "auto" && target.integers != IntegerWeights::kNone) return DType::kBFloat16;
  return target.dtype;
}

std::vector<int32_t> read_eos_token_ids(const Json& config, int64_t vocab_size) {
  std::vector<int32_t> ids;
  const auto append = [&](const Json& value) {
    if (!value.is_number_integer()) return;
    const auto id = value.get<int64_t>();
    if (id >= 0 && id < vocab_size) ids.push_back(static_cast<int32_t>(id));
  };
  const auto found = config.find("eos_token_id");
  if (found == config.end()) return ids;
  if (found->is_array()) {
    for (const Json& value : *found) append(value);
  } else {
    append(*found);
  }
  return ids;
}

int32_t step_tokens(const EngineConfig& config, const Backend& backend) {
  if (config.max_num_batched_tokens > 0) return config.max_num_batched_tokens;
  const std::optional<DeviceMemory> device = backend.memory();
  if (!device) return 4096;
  return device->free_at_start >= (int64_t{60} << 30) ? 16384 : 8192;
}

// The sizes of a step: no wider than the model can fill (section 1.3 of vLLM's defaults).
void settle_step_sizes(const EngineConfig& config, LoadedModel& loaded) {
  const int64_t all = loaded.info.max_model_len * config.max_num_seqs;
  loaded.max_num_batched_tokens =
      static_cast<int32_t>(std::min<int64_t>(step_tokens(config, *loaded.backend), all));
  loaded.max_num_seqs = std::min(config.max_num_seqs, loaded.max_num_batched_tokens);
  if (!config.enable_chunked_prefill && loaded.max_num_batched_tokens < loaded.info.max_model_len) {
    throw InvalidArgument(str_cat("max_num_batched_tokens: ", loaded.max_num_batched_tokens,
                                  " with chunked prefill off; expected at least max_model_len, ",
                                  loaded.info.max_model_len));
  }
}

void describe(const Checkpoint& checkpoint, const WeightLoader& loader, const ModelShape& shape,
              LoadedModel& loaded) {
  const DeviceInfo device = loaded.backend->info();
  ModelInfo& info = loaded.info;
  info.architecture = checkpoint.architecture();
  info.device = device.name;
  info.isa = device.isa;
  info.num_threads = device.num_threads;
  info.vocab_size = shape.vocab_size;
  info.hidden_size = shape.hidden_size;
  info.num_layers = shape.num_layers;
  info.max_model_len = shape.max_model_len;
  info.num_parameters = loader.num_parameters();
  info.weight_bytes = loader.weight_bytes();
  info.block_size = kBlockSize;
  info.config_json = dump_json(checkpoint.config());
  loaded.eos_token_ids = read_eos_token_ids(checkpoint.config(), shape.vocab_size);
  if (!loaded.eos_token_ids.empty()) info.eos_token_id = loaded.eos_token_ids.front();
}

void plan_memory(const EngineConfig& config, LoadedModel& loaded) {
  ModelInfo& info = loaded.info;
  const auto block_bytes = static_cast<int64_t>(loaded.runner->kv_block_bytes());
  info.num_kv_blocks =
      plan_kv_blocks(config,
                     {.block_bytes = block_bytes,
                      .block_size = kBlockSize,
                      .max_model_len = info.max_model_len,
                      .max_num_seqs = loaded.max_num_seqs},
                     default_kv_bytes(config, loaded.backend->memory(), available_memory_bytes()));
  info.kv_cache_bytes = info.num_kv_blocks * block_bytes;
  info.workspace_bytes = static_cast<int64_t>(loaded.runner->workspace_bytes());
}

std::unique_ptr<Model> build_model(const EngineConfig& config, const Backend& backend,
                                   WeightLoader& loader) {
  return make_model(loader, {.max_model_len = config.max_model_len,
                             .max_batch_tokens = step_tokens(config, backend),
                             .max_num_seqs = config.max_num_seqs});
}

template <typename T>
void check_same(const EngineConfig& config, std::string_view what, const T& now, const T& before) {
  if (now == before) return;
  throw LoadError(str_cat(config.model, ": ", what, " is ", now, ", and was ", before,
                          " when the engine was made; expected the same model"));
}

void check_same_shape(const EngineConfig& config, const ModelShape& now, const ModelShape& before) {
  check_same(config, "vocab_size", now.vocab_size, before.vocab_size);
  check_same(config, "the hidden size", now.hidden_size, before.hidden_size);
  check_same(config, "the number of layers", now.num_layers, before.num_layers);
  check_same(config, "the number of KV heads", now.num_kv_heads, before.num_kv_heads);
  check_same(config, "the head size", now.head_dim, before.head_dim);
  check_same(config, "the context length", now.max_model_len, before.max_model_len);
}

}  // namespace

LoadedModel load_model(const EngineConfig& config) {
  validate(config);
  LoadedModel loaded;
  loaded.backend = make_backend(config.device, config.num_threads);
  const std::unique_ptr<Checkpoint> checkpoint = open_checkpoint(config.model, config.load_format);
  const auto [target, quantization] = choose_target(config, *checkpoint);
  const DType dtype = target.dtype;
  const DType kv_dtype = choose_kv_dtype(config, target);
  WeightLoader loader(*loaded.backend, *checkpoint, target);
  std::unique_ptr<Model> model = build_model(config, *loaded.backend, loader);
  describe(*checkpoint, loader, model->shape(), loaded);
  loaded.info.dtype = dtype_name(dtype);
  loaded.info.quantization = quantization;
  loaded.info.kv_cache_dtype = dtype_name(kv_dtype);
  settle_step_sizes(config, loaded);
  loaded.runner = std::make_unique<ModelRunner>(
      *loaded.backend, std::move(model), dtype, kv_dtype,
      RunnerLimits{.max_tokens = loaded.max_num_batched_tokens, .block_size = kBlockSize});
  plan_memory(config, loaded);
  allocate_kv(loaded);
  return loaded;
}

void reload_model(const EngineConfig& config, LoadedModel& loaded) {
  const ModelInfo& info = loaded.info;
  const std::unique_ptr<Checkpoint> checkpoint = open_checkpoint(config.model, config.load_format);
  check_same(config, "the architecture", checkpoint->architecture(), info.architecture);
  const auto [target, quantization] = choose_target(config, *checkpoint);
  check_same(config, "the dtype", dtype_name(target.dtype), std::string_view(info.dtype));
  check_same(config, "the quantization", quantization, std::string_view(info.quantization));
  WeightLoader loader(*loaded.backend, *checkpoint, target);
  std::unique_ptr<Model> model;
  try {
    model = build_model(config, *loaded.backend, loader);
  } catch (const InvalidArgument& error) {  // max_model_len, which fitted the old configuration
    throw LoadError(
        str_cat(config.model, ": not the model that the engine was made with; ", error.what()));
  }
  check_same_shape(config, model->shape(), loaded.runner->shape());
  check_same(config, "the number of parameters", loader.num_parameters(), info.num_parameters);
  loaded.runner->restore_model(std::move(model));
}

void allocate_kv(LoadedModel& loaded) {
  const ModelInfo& info = loaded.info;
  try {
    loaded.runner->allocate_kv(info.num_kv_blocks);
  } catch (const OutOfMemory& error) {
    throw OutOfMemory(str_cat("KV cache: ", info.num_kv_blocks, " blocks of ",
                              info.kv_cache_bytes / info.num_kv_blocks, " bytes, beside ",
                              info.weight_bytes, " bytes of weights and ", info.workspace_bytes,
                              " of workspace, do not fit; ", error.what()));
  }
}

}  // namespace octavo
