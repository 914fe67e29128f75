// Gives the blocks of the KV cache to sequences: finds cached prefixes, grows block tables, keeps
// shared blocks intact by copy-on-write. Knows ids and counts, no tensors.
// Owned by the engine, used by the scheduler on the step thread. Outlives every BlockTable.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "cache/block_pool.h"
#include "cache/block_table.h"
#include "cache/copied_block.h"
#include "cache/prefix_cache.h"

namespace octavo {

// The cached blocks that a sequence can begin with. Valid until the manager is next changed.
struct PrefixMatch {
  std::vector<PrefixEntry> entries;
  int32_t num_tokens = 0;
};

class BlockManager {
 public:
  BlockManager(int32_t num_blocks, int32_t block_size, bool enable_prefix_caching);
  BlockManager(const BlockManager&) = delete;
  BlockManager& operator=(const BlockManager&) = delete;

  // The longest cached prefix of `tokens` (at least one) in whole blocks. Never all of them: the
  // last token is always computed, because its logits are wanted.
  PrefixMatch match(std::span<const int32_t> tokens, std::string_view salt) const;

  // Fills an empty table with the matched blocks and fresh ones up to `num_tokens`. False, and
  // nothing changes, when too few blocks are free.
  bool allocate(const PrefixMatch& match, int32_t num_tokens, BlockTable& table);

  // Makes `table` ready for the tokens [num_computed, num_tokens) to be stored: it covers them, and
  // no block that they go to is shared or cached. A block that was is replaced; `copies` gets what
  // must run before the step's stores. False, and nothing changes, when too few blocks are free.
  bool grow(BlockTable& table, int32_t num_computed, int32_t num_tokens,
            std::vector<CopiedBlock>& copies);

  // A second table of the blocks that hold the first `num_tokens` tokens.
  BlockTable fork(const BlockTable& table, int32_t num_tokens);

  // Tells the prefix cache of the full blocks among `tokens`, which are the sequence's tokens whose
  // keys and values are in the cache, or will be before the next step reads any. Content that is
  // already cached stays where it is.
  void publish(BlockTable& table, std::span<const int32_t> tokens, std::string_view salt);

  // Nothing that was computed until now will be found by a later match.
  void reset_prefix_cache();

  int32_t block_size() const { return block_size_; }
  int32_t num_blocks() const { return pool_.num_blocks(); }
  int32_t num_blocks_used() const { return pool_.num_used(); }               // referenced by tables
  int32_t num_blocks_free() const { return pool_.num_free(); }               // perhaps cached
  int32_t num_blocks_cached() const { return prefix_cache_.num_entries(); }  // used or free
  int64_t prefix_cache_queries() const { return num_queried_tokens_; }  // of allocated sequences
  int64_t prefix_cache_hits() const { return num_hit_tokens_; }
  int64_t blocks_for(int64_t num_tokens) const {
    return (num_tokens + block_size_ - 1) / block_size_;
  }

  const BlockPool& pool() const { return pool_; }
  const PrefixCache& prefix_cache() const { return prefix_cache_; }

 private:
  friend class BlockTable;

  // The blocks that writing needs, before any is taken.
  struct WritePlan {
    int32_t num_fresh = 0;
    int32_t num_shared = 0;
  };

  WritePlan plan_write(const BlockTable& table, int32_t first_block, int64_t num_blocks) const;
  int32_t take_block();
  void release(int32_t block);

  const int32_t block_size_;
  const bool enable_prefix_caching_;
  BlockPool pool_;
  PrefixCache prefix_cache_;
  uint64_t epoch_ = 0;  // of the prefix cache: resets until now
  int64_t num_queried_tokens_ = 0;
  int64_t num_hit_tokens_ = 0;
};

}  // namespace octavo
