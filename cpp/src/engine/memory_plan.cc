#include "engine/memory_plan.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "base/check.h"

namespace octavo {
namespace {

constexpr int64_t kDefaultKvBytes = int64_t{4} << 30;
constexpr double kDefaultKvShare = 0.4;
constexpr int64_t kMaxBlocks = std::numeric_limits<int32_t>::max() / 64;  // slots are int32

// The number at the start of a file such as memory.max; `fallback` when there is none ("max").
int64_t read_number(const char* path, int64_t fallback) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : fallback;
}

}  // namespace

int64_t available_memory_bytes() {
  int64_t available = std::numeric_limits<int64_t>::max();
  std::ifstream meminfo("/proc/meminfo");
  std::string key, unit;
  for (int64_t kilobytes = 0; meminfo >> key >> kilobytes; std::getline(meminfo, unit)) {
    if (key == "MemAvailable:") available = kilobytes * 1024;
  }
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  const int64_t limit = std::min(read_number("/sys/fs/cgroup/memory.max", kNone),
                                 read_number("/sys/fs/cgroup/memory/memory.limit_in_bytes", kNone));
  if (limit == kNone) return available;
  const int64_t used = std::max(read_number("/sys/fs/cgroup/memory.current", 0),
                                read_number("/sys/fs/cgroup/memory/memory.usage_in_bytes", 0));
  return std::min(available, std::max<int64_t>(limit - used, 0));
}

int64_t default_kv_bytes(const EngineConfig& config, const std::optional<DeviceMemory>& device,
                         int64_t available_bytes) {
  if (!device) {
    const auto share = static_cast<int64_t>(static_cast<double>(available_bytes) * kDefaultKvShare);
    return std::min(kDefaultKvBytes, share);
  }
  const double kept =
      (1.0 - config.gpu_memory_utilization) * static_cast<double>(device->free_at_start);
  return std::max<int64_t>(device->free - static_cast<int64_t>(kept), 0);
}

int64_t plan_kv_blocks(const EngineConfig& config, const MemoryNeeds& needs,
                       int64_t default_bytes) {
  if (config.num_kv_blocks > 0) return std::min(config.num_kv_blocks, kMaxBlocks);
  const int64_t budget =
      config.kv_cache_memory_bytes == 0 ? default_bytes : config.kv_cache_memory_bytes;
  const int64_t per_sequence = (needs.max_model_len + needs.block_size - 1) / needs.block_size;
  const int64_t wanted = per_sequence > kMaxBlocks / needs.max_num_seqs
                             ? kMaxBlocks
                             : per_sequence * needs.max_num_seqs;
  const int64_t affordable = budget / needs.block_bytes;
  if (affordable < 1) {
    throw OutOfMemory(str_cat("kv_cache_memory_bytes: ", budget, " bytes (", default_bytes,
                              " are free for it) hold no block of ", needs.block_size,
                              " tokens; expected at "
                              "least ",
                              needs.block_bytes, " bytes"));
  }
  return std::min({wanted, affordable, kMaxBlocks});
}

}  // namespace octavo
