#include "cache/prefix_cache.h"

#include <algorithm>
#include <random>

#include "base/check.h"

namespace octavo {
namespace {

KeyedHash::Key random_key() {
  std::random_device device;
  const auto draw = [&] { return (static_cast<uint64_t>(device()) << 32) | device(); };
  const uint64_t first = draw();
  return {first, draw()};
}

}  // namespace

PrefixCache::PrefixCache(int32_t num_blocks, int32_t block_size, int32_t num_buckets)
    : block_size_(block_size), hash_(random_key()) {
  OCTAVO_CHECK(num_blocks > 0 && block_size > 0 && num_buckets >= 0, "prefix cache: ", num_blocks,
               " blocks of ", block_size, " tokens, ", num_buckets, " buckets");
  nodes_.resize(num_blocks);
  for (Node& node : nodes_) node.root = roots_.end();
  tokens_.resize(static_cast<size_t>(num_blocks) * block_size);
  buckets_.resize(num_buckets ? num_buckets : num_blocks, -1);
}

std::optional<PrefixEntry> PrefixCache::find(const PrefixKey& key) const {
  check_key(key);
  uint64_t parent = key.parent;
  if (!parent) {
    const auto root = roots_.find(key.salt);
    if (root == roots_.end()) return std::nullopt;
    parent = root->second.id;
  }
  const int32_t block = find_in_bucket(bucket_of(parent, key.tokens), parent, key.tokens);
  if (block < 0) return std::nullopt;
  return PrefixEntry{nodes_[block].id, block};
}

PrefixEntry PrefixCache::insert(const PrefixKey& key, int32_t block) {
  if (const auto found = find(key)) return *found;
  // The block may still be known as the continuation of a prefix that was forgotten.
  erase(block);
  Node node;
  node.id = next_id_++;
  node.parent = key.parent;
  node.root = roots_.end();
  if (!key.parent) {
    node.root = roots_.find(key.salt);
    if (node.root == roots_.end()) {
      node.root = roots_.emplace(std::string(key.salt), Root{next_id_++}).first;
    }
    node.parent = node.root->second.id;
    ++node.root->second.num_entries;
  }
  node.bucket = bucket_of(node.parent, key.tokens);
  node.next = buckets_[node.bucket];
  buckets_[node.bucket] = block;
  nodes_[block] = node;
  std::copy(key.tokens.begin(), key.tokens.end(),
            tokens_.begin() + static_cast<int64_t>(block) * block_size_);
  ++num_entries_;
  return {node.id, block};
}

void PrefixCache::erase(int32_t block) {
  if (!contains(block)) return;
  Node& node = nodes_[block];
  int32_t* link = &buckets_[node.bucket];
  while (*link != block) link = &nodes_[*link].next;
  *link = node.next;
  // Without a first block nothing that begins with the salt can be found.
  if (node.root != roots_.end() && --node.root->second.num_entries == 0) roots_.erase(node.root);
  node = Node{};
  node.root = roots_.end();
  --num_entries_;
}

void PrefixCache::clear() {
  for (int32_t block = 0; block < static_cast<int32_t>(nodes_.size()); ++block) erase(block);
}

void PrefixCache::check() const {
  int32_t entries = 0, first_blocks = 0, expected_first_blocks = 0;
  for (int32_t block = 0; block < static_cast<int32_t>(nodes_.size()); ++block) {
    const Node& node = nodes_[block];
    if (!node.id) continue;
    ++entries;
    first_blocks += node.root != roots_.end();
    OCTAVO_CHECK(node.bucket == bucket_of(node.parent, tokens_of(block)) &&
                     find_in_bucket(node.bucket, node.parent, tokens_of(block)) == block,
                 "prefix cache: the entry of block ", block, " is not unique or not found");
  }
  for (const auto& [salt, root] : roots_) {
    OCTAVO_CHECK(root.num_entries > 0, "prefix cache: a salt without entries is kept");
    expected_first_blocks += root.num_entries;
  }
  OCTAVO_CHECK(entries == num_entries_ && first_blocks == expected_first_blocks,
               "prefix cache: counts ", num_entries_, " entries and ", expected_first_blocks,
               " first blocks, has ", entries, " and ", first_blocks);
}

int32_t PrefixCache::bucket_of(uint64_t parent, std::span<const int32_t> tokens) const {
  return static_cast<int32_t>(hash_(parent, tokens) % buckets_.size());
}

int32_t PrefixCache::find_in_bucket(int32_t bucket, uint64_t parent,
                                    std::span<const int32_t> tokens) const {
  for (int32_t block = buckets_[bucket]; block >= 0; block = nodes_[block].next) {
    if (nodes_[block].parent == parent && std::ranges::equal(tokens_of(block), tokens)) {
      return block;
    }
  }
  return -1;
}

std::span<const int32_t> PrefixCache::tokens_of(int32_t block) const {
  return std::span(tokens_).subspan(static_cast<size_t>(block) * block_size_, block_size_);
}

void PrefixCache::check_key(const PrefixKey& key) const {
  OCTAVO_CHECK(static_cast<int32_t>(key.tokens.size()) == block_size_, "prefix cache: a key of ",
               key.tokens.size(), " tokens, expected ", block_size_);
}

}  // namespace octavo
