#include "runner/kv_storage.h"

namespace octavo {

KvStorage::KvStorage(Backend& backend, const KvShape& shape, int64_t num_layers,
                     int64_t num_blocks) {
  const size_t bytes = backend.kv_block_bytes(shape) * static_cast<size_t>(num_blocks);
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    buffers_.push_back(backend.allocate(bytes));
    layers_.push_back({.data = buffers_.back().data(), .shape = shape});
  }
}

}  // namespace octavo
