// Finds the block that holds the keys and values of given tokens after a given prefix. Exact: a
// hash only finds candidates, equality decides, so no two prefixes are ever confused.
// Owned by the BlockManager; called by the step thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cache/keyed_hash.h"

namespace octavo {

// What an entry is found by: all tokens of one block, and the prefix before them. The prefix is the
// entry of the block before, whose id is never used again; 0 is the beginning of a sequence.
// The salt keeps tenants apart; it counts only at the beginning, where it chooses the root.
struct PrefixKey {
  std::string_view salt;
  uint64_t parent;
  std::span<const int32_t> tokens;  // [block_size]
};

struct PrefixEntry {
  uint64_t id = 0;
  int32_t block = -1;
};

class PrefixCache {
 public:
  // One bucket makes every key collide: for tests. 0: as many as blocks.
  PrefixCache(int32_t num_blocks, int32_t block_size, int32_t num_buckets = 0);

  std::optional<PrefixEntry> find(const PrefixKey& key) const;
  // Makes `block` the holder of `key`, unless it has one: then that one stays and is returned.
  PrefixEntry insert(const PrefixKey& key, int32_t block);
  // Forgets the entry of `block`, if it has one. Entries that follow it cannot be found any more;
  // they stay until their own blocks are erased.
  void erase(int32_t block);
  void clear();

  bool contains(int32_t block) const { return entry_id(block) != 0; }
  // Of the block's entry, 0 where it has none. Ids count up.
  uint64_t entry_id(int32_t block) const { return nodes_[block].id; }
  bool contains(PrefixEntry entry) const { return entry.id && nodes_[entry.block].id == entry.id; }
  int32_t num_entries() const { return num_entries_; }
  // Salts are remembered only while an entry begins with them.
  int64_t num_salts() const { return static_cast<int64_t>(roots_.size()); }

  // Throws InternalError when the index and the entries disagree. O(blocks): for tests.
  void check() const;

 private:
  struct Root {
    uint64_t id;
    int32_t num_entries = 0;  // of first blocks
  };
  // A tree, which no crafted salt can slow down.
  using Roots = std::map<std::string, Root, std::less<>>;

  struct Node {
    uint64_t id = 0;  // 0: the block has no entry
    uint64_t parent = 0;
    Roots::iterator root;  // of a first block, else roots_.end()
    int32_t bucket = 0;
    int32_t next = -1;  // block of the same bucket
  };

  int32_t bucket_of(uint64_t parent, std::span<const int32_t> tokens) const;
  int32_t find_in_bucket(int32_t bucket, uint64_t parent, std::span<const int32_t> tokens) const;
  std::span<const int32_t> tokens_of(int32_t block) const;
  void check_key(const PrefixKey& key) const;

  const int32_t block_size_;
  const KeyedHash hash_;
  uint64_t next_id_ = 1;  // of entries and roots
  int32_t num_entries_ = 0;
  Roots roots_;
  std::vector<Node> nodes_;       // [num_blocks]
  std::vector<int32_t> tokens_;   // [num_blocks, block_size]
  std::vector<int32_t> buckets_;  // the first block, or -1
};

}  // namespace octavo
