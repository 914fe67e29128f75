// How many KV blocks an engine gets, in bytes, before anything of that size is allocated.
#pragma once

#include <cstdint>
#include <optional>

#include "backend/backend.h"
#include "octavo/engine_config.h"

namespace octavo {

struct MemoryNeeds {
  int64_t block_bytes = 0;    // one KV block over all layers
  int32_t block_size = 0;     // tokens
  int64_t max_model_len = 0;  // tokens
  int64_t max_num_seqs = 0;
};

// The blocks that the configuration asks for, or, where it leaves that open, what max_num_seqs
// sequences of max_model_len need, bounded by `default_bytes`. Throws OutOfMemory that names every
// term when not even one block fits.
int64_t plan_kv_blocks(const EngineConfig& config, const MemoryNeeds& needs, int64_t default_bytes);

// The KV cache's bytes where the configuration leaves them open. On the host: 4 GiB, and 40% of
// `available_bytes` at most. On a device with memory of its own: what gpu_memory_utilization leaves
// when weights and workspace are there.
int64_t default_kv_bytes(const EngineConfig& config, const std::optional<DeviceMemory>& device,
                         int64_t available_bytes);

// What this process may still use: the machine's available memory or the cgroup's, whichever is
// less.
int64_t available_memory_bytes();

}  // namespace octavo
