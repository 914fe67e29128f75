// The blocks of one sequence, in the order of its tokens. Owns one reference to each and gives them
// back when destroyed, so no end of a sequence can lose a block. Held by a Sequence; filled and
// changed only by the BlockManager, which must outlive it; step thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/prefix_cache.h"

namespace octavo {

class BlockManager;

class BlockTable {
 public:
  BlockTable() = default;
  ~BlockTable();
  BlockTable(BlockTable&& other) noexcept { swap(other); }
  BlockTable& operator=(BlockTable&& other);

  std::span<const int32_t> ids() const { return ids_; }
  int32_t size() const { return static_cast<int32_t>(ids_.size()); }
  bool empty() const { return ids_.empty(); }
  // How many blocks from the first on the prefix cache knows.
  int32_t num_published() const { return num_published_; }

  // Gives all blocks back, the last one first: the head of a prefix stays cached longest.
  void clear();

 private:
  friend class BlockManager;

  void swap(BlockTable& other) noexcept;

  BlockManager* manager_ = nullptr;
  std::vector<int32_t> ids_;
  int32_t num_published_ = 0;
  PrefixEntry last_published_;  // of the prefix, perhaps held by another sequence's block
  uint64_t epoch_ = 0;          // of the prefix cache when the first token was computed
};

}  // namespace octavo
