#include "cache/block_pool.h"

#include "base/check.h"

namespace octavo {

BlockPool::BlockPool(int32_t num_blocks) {
  OCTAVO_CHECK(num_blocks > 0 && num_blocks < INT32_MAX, "block pool: ", num_blocks, " blocks");
  ref_counts_.resize(num_blocks, 0);
  links_.resize(static_cast<size_t>(num_blocks) + 1);
  links_[num_blocks] = {num_blocks, num_blocks};
  for (int32_t block = 0; block < num_blocks; ++block) {
    insert_between(block, links_[num_blocks].previous, num_blocks);
  }
}

int32_t BlockPool::allocate() {
  OCTAVO_CHECK(num_free_ > 0, "block pool: no block is free");
  const int32_t block = links_[num_blocks()].next;
  unlink(block);
  ref_counts_[block] = 1;
  return block;
}

void BlockPool::add_reference(int32_t block) {
  if (ref_counts_[check_id(block)]++ == 0) unlink(block);
}

void BlockPool::release(int32_t block, bool keep_content) {
  OCTAVO_CHECK(ref_counts_[check_id(block)] > 0, "block pool: block ", block, " is released twice");
  if (--ref_counts_[block] > 0) return;
  const int32_t anchor = num_blocks();
  if (keep_content) {
    insert_between(block, links_[anchor].previous, anchor);
  } else {
    insert_between(block, anchor, links_[anchor].next);
  }
}

std::vector<int32_t> BlockPool::free_blocks() const {
  std::vector<int32_t> blocks;
  const int32_t anchor = num_blocks();
  for (int32_t block = links_[anchor].next; block != anchor; block = links_[block].next) {
    OCTAVO_CHECK(blocks.size() < ref_counts_.size(), "block pool: the free list is a loop");
    blocks.push_back(block);
  }
  return blocks;
}

int32_t BlockPool::check_id(int32_t block) const {
  OCTAVO_CHECK(block >= 0 && block < num_blocks(), "block pool: there is no block ", block);
  return block;
}

void BlockPool::insert_between(int32_t block, int32_t previous, int32_t next) {
  links_[block] = {previous, next};
  links_[previous].next = block;
  links_[next].previous = block;
  ++num_free_;
}

void BlockPool::unlink(int32_t block) {
  links_[links_[block].previous].next = links_[block].next;
  links_[links_[block].next].previous = links_[block].previous;
  --num_free_;
}

}  // namespace octavo
