#include "cache/block_manager.h"

#include <algorithm>

#include "base/check.h"

namespace octavo {

BlockManager::BlockManager(int32_t num_blocks, int32_t block_size, bool enable_prefix_caching)
    : block_size_(block_size),
      enable_prefix_caching_(enable_prefix_caching),
      pool_(num_blocks),
      prefix_cache_(num_blocks, block_size) {}

PrefixMatch BlockManager::match(std::span<const int32_t> tokens, std::string_view salt) const {
  OCTAVO_CHECK(!tokens.empty(), "block manager: match of no tokens");
  PrefixMatch match;
  if (!enable_prefix_caching_) return match;
  uint64_t parent = 0;
  for (size_t begin = 0; begin + block_size_ < tokens.size(); begin += block_size_) {
    const auto entry = prefix_cache_.find({salt, parent, tokens.subspan(begin, block_size_)});
    if (!entry) break;
    match.entries.push_back(*entry);
    parent = entry->id;
  }
  match.num_tokens = static_cast<int32_t>(match.entries.size()) * block_size_;
  return match;
}

bool BlockManager::allocate(const PrefixMatch& match, int32_t num_tokens, BlockTable& table) {
  OCTAVO_CHECK(table.empty() && num_tokens > match.num_tokens, "block manager: allocate of ",
               num_tokens, " tokens, ", match.num_tokens, " of them cached, in a table of ",
               table.size(), " blocks");
  const int64_t num_blocks = blocks_for(num_tokens);
  int64_t num_taken = num_blocks - static_cast<int64_t>(match.entries.size());
  for (const PrefixEntry& entry : match.entries) {
    OCTAVO_CHECK(prefix_cache_.contains(entry), "block manager: a match is out of date");
    num_taken += pool_.ref_count(entry.block) == 0;
  }
  if (num_taken > pool_.num_free()) return false;

  table.manager_ = this;
  table.epoch_ = epoch_;
  table.ids_.reserve(num_blocks);
  // The matched blocks first, so that none of them is handed out as a fresh one.
  for (const PrefixEntry& entry : match.entries) {
    pool_.add_reference(entry.block);
    table.ids_.push_back(entry.block);
    table.last_published_ = entry;
  }
  table.num_published_ = table.size();
  while (table.size() < num_blocks) table.ids_.push_back(take_block());
  if (enable_prefix_caching_) {
    num_queried_tokens_ += num_tokens;
    num_hit_tokens_ += match.num_tokens;
  }
  return true;
}

bool BlockManager::grow(BlockTable& table, int32_t num_computed, int32_t num_tokens,
                        std::vector<CopiedBlock>& copies) {
  OCTAVO_CHECK(num_computed >= 0 && num_computed < num_tokens, "block manager: grow from ",
               num_computed, " to ", num_tokens, " tokens");
  const int32_t first_block = num_computed / block_size_;
  const int64_t num_blocks = blocks_for(num_tokens);
  OCTAVO_CHECK(first_block <= table.size() && blocks_for(num_computed) <= table.size(),
               "block manager: a table of ", table.size(), " blocks does not hold ", num_computed,
               " computed tokens");
  const WritePlan plan = plan_write(table, first_block, num_blocks);
  int32_t num_spare = pool_.num_free() - plan.num_fresh - plan.num_shared;
  if (num_spare < 0) return false;

  if (table.empty()) {
    table.manager_ = this;
    table.epoch_ = epoch_;
  }
  // Blocks that are written again must be published again.
  if (first_block < table.num_published_) table.num_published_ = 0;
  for (int32_t i = first_block; i < std::min<int64_t>(table.size(), num_blocks); ++i) {
    int32_t& block = table.ids_[i];
    if (pool_.ref_count(block) == 1) {
      if (!prefix_cache_.contains(block)) continue;
      // Only the prefix cache wants the old content: not worth another sequence's block. This is
      // also why a sequence that has the whole pool can always go on.
      if (num_spare == 0) {
        prefix_cache_.erase(block);
        continue;
      }
      --num_spare;
    }
    const int32_t source = block;
    block = take_block();
    copies.push_back({source, block});
    release(source);
  }
  while (table.size() < num_blocks) table.ids_.push_back(take_block());
  return true;
}

BlockTable BlockManager::fork(const BlockTable& table, int32_t num_tokens) {
  const int64_t num_blocks = blocks_for(num_tokens);
  OCTAVO_CHECK(num_tokens >= 0 && num_blocks <= table.size(), "block manager: fork of ", num_tokens,
               " tokens of a table of ", table.size(), " blocks");
  BlockTable child;
  if (num_blocks == 0) return child;
  child.manager_ = this;
  child.epoch_ = table.epoch_;
  child.ids_.assign(table.ids_.begin(), table.ids_.begin() + num_blocks);
  for (const int32_t block : child.ids_) pool_.add_reference(block);
  // A shorter child finds its place in the cache when it next publishes.
  if (table.num_published_ <= num_tokens / block_size_) {
    child.num_published_ = table.num_published_;
    child.last_published_ = table.last_published_;
  }
  return child;
}

void BlockManager::publish(BlockTable& table, std::span<const int32_t> computed_tokens,
                           std::string_view salt) {
  const int32_t num_full = static_cast<int32_t>(computed_tokens.size() / block_size_);
  OCTAVO_CHECK(num_full <= table.size(), "block manager: publish of ", computed_tokens.size(),
               " tokens of a table of ", table.size(), " blocks");
  if (!enable_prefix_caching_ || table.epoch_ != epoch_ || num_full <= table.num_published_) return;
  // The prefix may have been held by another sequence and is gone now. This table still has all of
  // it, so it starts again from the beginning.
  if (table.num_published_ > 0 && !prefix_cache_.contains(table.last_published_)) {
    table.num_published_ = 0;
  }
  for (; table.num_published_ < num_full; ++table.num_published_) {
    const int32_t i = table.num_published_;
    const uint64_t parent = i > 0 ? table.last_published_.id : 0;
    const auto tokens = computed_tokens.subspan(static_cast<size_t>(i) * block_size_, block_size_);
    table.last_published_ = prefix_cache_.insert({salt, parent, tokens}, table.ids_[i]);
  }
}

void BlockManager::reset_prefix_cache() {
  prefix_cache_.clear();
  ++epoch_;
}

BlockManager::WritePlan BlockManager::plan_write(const BlockTable& table, int32_t first_block,
                                                 int64_t num_blocks) const {
  WritePlan plan;
  plan.num_fresh = static_cast<int32_t>(std::max<int64_t>(num_blocks - table.size(), 0));
  for (int32_t i = first_block; i < std::min<int64_t>(table.size(), num_blocks); ++i) {
    plan.num_shared += pool_.ref_count(table.ids_[i]) > 1;
  }
  return plan;
}

int32_t BlockManager::take_block() {
  const int32_t block = pool_.allocate();
  prefix_cache_.erase(block);
  return block;
}

void BlockManager::release(int32_t block) {
  pool_.release(block, /*keep_content=*/prefix_cache_.contains(block));
}

}  // namespace octavo
