// The KV cache's blocks as ids 0..num_blocks-1: who counts their references and in which order free
// ones are handed out again. Owned by the BlockManager; called by the step thread. All O(1).
#pragma once

#include <cstdint>
#include <vector>

namespace octavo {

class BlockPool {
 public:
  explicit BlockPool(int32_t num_blocks);

  // The free block to lose first, now with one reference. At least one block must be free.
  int32_t allocate();
  // One more reference. A free block leaves the free list with its content: a prefix hit.
  void add_reference(int32_t block);
  // One reference less. At none the block is free: handed out last when its content is worth
  // keeping, else first.
  void release(int32_t block, bool keep_content);

  int32_t num_blocks() const { return static_cast<int32_t>(ref_counts_.size()); }
  int32_t num_free() const { return num_free_; }
  int32_t num_used() const { return num_blocks() - num_free_; }
  int32_t ref_count(int32_t block) const { return ref_counts_[check_id(block)]; }

  // The free blocks in the order of allocation. O(free): for tests.
  std::vector<int32_t> free_blocks() const;

 private:
  struct Link {
    int32_t previous;
    int32_t next;
  };

  int32_t check_id(int32_t block) const;
  void insert_between(int32_t block, int32_t previous, int32_t next);
  void unlink(int32_t block);

  std::vector<int32_t> ref_counts_;
  std::vector<Link> links_;  // a ring of the free blocks; links_[num_blocks] is its anchor
  int32_t num_free_ = 0;
};

}  // namespace octavo
