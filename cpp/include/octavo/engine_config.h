// What an Engine is made from. A plain value; validated by the Engine's constructor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "octavo/export.h"

namespace octavo {

struct OCTAVO_EXPORT EngineConfig {
  std::string model;            // a directory with config.json and safetensors, or a .gguf file
  std::string device = "auto";  // auto (cuda where there is a GPU, else cpu), cpu, cuda, cuda:N
                                // (the N-th GPU), or ref (the scalar reference)
  std::string dtype = "auto";   // auto, float32, bfloat16, float16: weights and KV cache.
                                // auto: bfloat16 checkpoints stay, all others become float16
  std::string quantization = "auto";  // which matrices are multiplied as integers. gguf: those that
                                      // a GGUF file stores so, the others become dtype; int8: all
                                      // of the layers, quantized on load with a scale a row; none;
                                      // auto: gguf where dtype is auto, else none
  std::string kv_cache_dtype = "auto";  // float32, bfloat16, float16, or int8, with a scale for
                                        // each vector of a head. auto: as dtype, but bfloat16 where
                                        // dtype is auto and matrices are multiplied as integers
  std::string load_format =
      "auto";                  // auto, safetensors, gguf, dummy (random weights, config.json only)
  int64_t max_model_len = 0;   // prompt and output; 0: from the model's configuration
  int32_t max_num_seqs = 256;  // sequences in one step, at least 1
  int32_t max_num_batched_tokens = 0;  // the token budget of one step; 0: 4096 on the host, on a
                                       // GPU 8192, or 16384 where it has 60 GiB free, as vLLM
  int64_t kv_cache_memory_bytes = 0;   // 0: see num_kv_blocks
  int64_t num_kv_blocks = 0;  // 0: what max_num_seqs x max_model_len needs, at most 4 GiB and 40%
                              // of the free memory on a CPU, or what gpu_memory_utilization leaves
  double gpu_memory_utilization = 0.9;  // of the GPU memory that is free when the engine is made:
                                        // weights, workspace and KV cache; above 0, at most 1
  bool enable_prefix_caching = true;
  bool enable_chunked_prefill = true;  // false: a prompt is computed in one step
  int32_t num_threads = 0;             // 0: cgroup quota, affinity and physical cores, the least
  int32_t max_logprobs = 20;           // the most that a request may ask for; -1: no limit
  std::string logprobs_mode =
      "raw_logprobs";  // or processed_logprobs, raw_logits, processed_logits:
                       // before or after penalties, bias, bans, temperature
  uint64_t seed = 0;   // for requests without a seed of their own
};

}  // namespace octavo
