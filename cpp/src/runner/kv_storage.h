// The memory of the paged KV cache: one allocation a layer, addressed by block id. Owned by the
// model runner; the block manager decides what the ids mean.
#pragma once

#include <span>
#include <vector>

#include "backend/backend.h"

namespace octavo {

class KvStorage {
 public:
  KvStorage(Backend& backend, const KvShape& shape, int64_t num_layers, int64_t num_blocks);

  std::span<const KvLayer> layers() const { return layers_; }

 private:
  std::vector<Buffer> buffers_;  // [layers], num_blocks * Backend::kv_block_bytes each
  std::vector<KvLayer> layers_;
};

}  // namespace octavo
