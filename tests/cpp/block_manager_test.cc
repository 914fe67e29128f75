#include "cache/block_manager.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "octavo/error.h"

namespace octavo {
namespace {

using Tokens = std::vector<int32_t>;
using Ids = std::vector<int32_t>;
constexpr int32_t kBlock = 4;

Tokens iota(int32_t count, int32_t first = 0) {
  Tokens tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

Ids ids(const BlockTable& table) { return {table.ids().begin(), table.ids().end()}; }

// A table of all blocks of `tokens`, as of a sequence that has computed them.
BlockTable compute(BlockManager& manager, const Tokens& tokens, std::string_view salt = "") {
  BlockTable table;
  REQUIRE(
      manager.allocate(manager.match(tokens, salt), static_cast<int32_t>(tokens.size()), table));
  manager.publish(table, tokens, salt);
  return table;
}

TEST_CASE("a table gives its blocks back once, the last first") {
  BlockManager manager(4, kBlock, false);
  {
    BlockTable table = compute(manager, iota(9));
    CHECK(ids(table) == Ids{0, 1, 2});
    BlockTable moved = std::move(table);
    CHECK(table.empty());
    CHECK(moved.size() == 3);
    CHECK(manager.num_blocks_used() == 3);
    table = std::move(moved);
    CHECK(manager.num_blocks_used() == 3);
    table = compute(manager, iota(1));
    CHECK(ids(table) == Ids{3});
    CHECK(manager.num_blocks_used() == 1);
  }
  CHECK(manager.num_blocks_used() == 0);
  CHECK(manager.num_blocks_free() == 4);
}

TEST_CASE("hits are whole blocks and never the last token") {
  const int32_t k = 3;
  for (int32_t cached = k * kBlock - 1; cached <= k * kBlock + 1; ++cached) {
    BlockManager manager(16, kBlock, true);
    compute(manager, iota(cached));
    for (int32_t asked = 1; asked <= (k + 2) * kBlock; ++asked) {
      CAPTURE(cached);
      CAPTURE(asked);
      const PrefixMatch match = manager.match(iota(asked), "");
      CHECK(match.num_tokens == std::min(cached / kBlock, (asked - 1) / kBlock) * kBlock);
      CHECK(static_cast<int32_t>(match.entries.size()) * kBlock == match.num_tokens);
    }
  }
}

TEST_CASE("a match ends at the first different token, and salts isolate") {
  BlockManager manager(16, kBlock, true);
  compute(manager, iota(16), "a");
  for (int32_t different = 0; different < 16; ++different) {
    Tokens tokens = iota(17);
    tokens[different] = 99;
    CHECK(manager.match(tokens, "a").num_tokens == different / kBlock * kBlock);
  }
  CHECK(manager.match(iota(17), "a").num_tokens == 16);
  CHECK(manager.match(iota(17), "").num_tokens == 0);
  CHECK(manager.match(iota(17), "b").num_tokens == 0);
  CHECK_THROWS_AS(manager.match({}, ""), InternalError);
}

TEST_CASE("without prefix caching nothing matches and nothing is counted") {
  BlockManager manager(16, kBlock, false);
  compute(manager, iota(16));
  compute(manager, iota(16));
  CHECK(manager.num_blocks_cached() == 0);
  CHECK(manager.prefix_cache_queries() == 0);
}

TEST_CASE("matched blocks are shared and counted") {
  BlockManager manager(16, kBlock, true);
  const BlockTable first = compute(manager, iota(9));
  const BlockTable second = compute(manager, iota(10));
  CHECK(ids(first) == Ids{0, 1, 2});
  CHECK(ids(second) == Ids{0, 1, 3});
  CHECK(manager.num_blocks_used() == 4);
  CHECK(manager.num_blocks_cached() == 2);
  CHECK(manager.prefix_cache_queries() == 19);
  CHECK(manager.prefix_cache_hits() == 8);
}

TEST_CASE("eviction loses the oldest sequence first and its tail before its head") {
  BlockManager manager(6, kBlock, true);
  compute(manager, iota(12));       // blocks 0 1 2
  compute(manager, iota(12, 100));  // blocks 3 4 5
  const auto cached = [&](int32_t first) { return manager.match(iota(13, first), "").num_tokens; };
  CHECK(cached(0) == 12);
  BlockTable fresh;
  std::vector<CopiedBlock> copies;
  REQUIRE(manager.grow(fresh, 0, 1, copies));
  CHECK(ids(fresh) == Ids{2});
  CHECK(cached(0) == 8);
  CHECK(cached(100) == 12);
  // Use makes recent: the first sequence's blocks go behind the second's.
  compute(manager, iota(9));
  REQUIRE(manager.grow(fresh, 1, 8, copies));
  CHECK(cached(0) == 8);
  CHECK(cached(100) == 8);
  REQUIRE(manager.grow(fresh, 8, 20, copies));
  CHECK(cached(0) == 4);
  CHECK(cached(100) == 0);
  CHECK(copies.empty());
}

TEST_CASE("blocks that hold nothing cached are used before cached ones") {
  BlockManager manager(4, kBlock, true);
  compute(manager, iota(7));  // one full block, one partial
  BlockTable table;
  REQUIRE(manager.allocate({}, 12, table));
  CHECK(manager.match(iota(7), "").num_tokens == 4);
}

TEST_CASE("allocate counts matched blocks that are free, and changes nothing when it fails") {
  BlockManager manager(4, kBlock, true);
  compute(manager, iota(12));  // three cached, free
  BlockTable other;
  REQUIRE(manager.allocate({}, 4, other));
  const PrefixMatch match = manager.match(iota(17), "");
  CHECK(match.num_tokens == 12);
  BlockTable table;
  CHECK_FALSE(manager.allocate(match, 17, table));
  CHECK(table.empty());
  CHECK(manager.num_blocks_used() == 1);
  CHECK(manager.match(iota(17), "").num_tokens == 12);
  other.clear();
  CHECK_FALSE(manager.allocate(match, 17, table));
  CHECK(manager.allocate(match, 16, table));
  CHECK(manager.num_blocks_free() == 0);
}

TEST_CASE("a match that is out of date is refused") {
  BlockManager manager(2, kBlock, true);
  compute(manager, iota(4));
  const PrefixMatch match = manager.match(iota(5), "");
  manager.reset_prefix_cache();
  BlockTable table;
  CHECK_THROWS_AS(manager.allocate(match, 5, table), InternalError);
}

TEST_CASE("grow takes what is missing or nothing") {
  BlockManager manager(3, kBlock, true);
  std::vector<CopiedBlock> copies;
  BlockTable table;
  REQUIRE(manager.grow(table, 0, 5, copies));
  CHECK(table.size() == 2);
  REQUIRE(manager.grow(table, 5, 8, copies));
  CHECK(table.size() == 2);
  CHECK_FALSE(manager.grow(table, 8, 13, copies));
  CHECK(table.size() == 2);
  REQUIRE(manager.grow(table, 8, 12, copies));
  CHECK(table.size() == 3);
  CHECK(copies.empty());
  CHECK_THROWS_AS(manager.grow(table, 4, 4, copies), InternalError);
  BlockTable short_table;
  CHECK_THROWS_AS(manager.grow(short_table, 4, 5, copies), InternalError);
}

TEST_CASE(
    "copy-on-write: the first writer of a shared block gets a copy, the last writes in place") {
  BlockManager manager(4, kBlock, true);
  BlockTable parent = compute(manager, iota(6));
  BlockTable child = manager.fork(parent, 6);
  CHECK(ids(child) == ids(parent));
  CHECK(manager.num_blocks_used() == 2);
  std::vector<CopiedBlock> copies;
  REQUIRE(manager.grow(parent, 6, 7, copies));
  REQUIRE(copies.size() == 1);
  CHECK(copies[0].source == 1);
  CHECK(copies[0].target == 2);
  CHECK(ids(parent) == Ids{0, 2});
  CHECK(ids(child) == Ids{0, 1});
  REQUIRE(manager.grow(child, 6, 7, copies));
  CHECK(copies.size() == 1);
  CHECK(ids(child) == Ids{0, 1});
  CHECK(manager.num_blocks_used() == 3);
}

TEST_CASE("copy-on-write fails without a free block and changes nothing") {
  BlockManager manager(2, kBlock, true);
  BlockTable parent = compute(manager, iota(6));
  BlockTable child = manager.fork(parent, 6);
  std::vector<CopiedBlock> copies;
  CHECK_FALSE(manager.grow(child, 6, 7, copies));
  CHECK(copies.empty());
  CHECK(ids(child) == Ids{0, 1});
  parent.clear();
  CHECK(manager.grow(child, 6, 7, copies));
  CHECK(copies.empty());
}

TEST_CASE("a cached block is not written to") {
  BlockManager manager(3, kBlock, true);
  BlockTable parent = compute(manager, iota(8));
  BlockTable child = manager.fork(parent, 7);
  CHECK(child.size() == 2);
  parent.clear();
  std::vector<CopiedBlock> copies;
  SUBCASE("a copy takes its place") {
    REQUIRE(manager.grow(child, 7, 8, copies));
    REQUIRE(copies.size() == 1);
    CHECK(copies[0].source == 1);
    CHECK(ids(child) == Ids{0, 2});
    CHECK(manager.match(iota(9), "").num_tokens == 8);
    // The same content a second time: the first holder stays, and the chain goes on from it.
    manager.publish(child, iota(8), "");
    CHECK(manager.num_blocks_cached() == 2);
    CHECK(manager.match(iota(9), "").entries[1].block == 1);
    REQUIRE(manager.grow(child, 8, 12, copies));
    manager.publish(child, iota(12), "");
  }
  SUBCASE("without a free block it is forgotten and written in place") {
    BlockTable other;
    REQUIRE(manager.allocate({}, 1, other));
    REQUIRE(manager.grow(child, 7, 8, copies));
    CHECK(copies.empty());
    CHECK(ids(child) == Ids{0, 1});
    CHECK(manager.match(iota(9), "").num_tokens == 4);
    manager.publish(child, iota(8), "");
    CHECK(manager.match(iota(9), "").num_tokens == 8);
  }
}

TEST_CASE("a fork shares exactly the blocks of its tokens") {
  BlockManager manager(8, kBlock, true);
  BlockTable parent = compute(manager, iota(10));
  CHECK(manager.fork(parent, 0).empty());
  CHECK(manager.fork(parent, 1).size() == 1);
  CHECK(manager.fork(parent, 4).size() == 1);
  CHECK(manager.fork(parent, 5).size() == 2);
  CHECK(manager.fork(parent, 10).size() == 3);
  CHECK(manager.fork(parent, 10).num_published() == 2);
  CHECK(manager.fork(parent, 5).num_published() == 0);
  CHECK_THROWS_AS(manager.fork(parent, 13), InternalError);
  CHECK(manager.num_blocks_used() == 3);

  // A shorter child finds the way back to the parent's entries and continues them.
  BlockTable child = manager.fork(parent, 5);
  std::vector<CopiedBlock> copies;
  REQUIRE(manager.grow(child, 5, 8, copies));
  Tokens tokens = iota(8);
  tokens[6] = 77;
  manager.publish(child, tokens, "");
  tokens.push_back(0);
  const PrefixMatch match = manager.match(tokens, "");
  REQUIRE(match.num_tokens == 8);
  CHECK(match.entries[0].block == parent.ids()[0]);
  CHECK(match.entries[1].block == child.ids()[1]);
}

TEST_CASE("content computed twice keeps the first entry; the later chain continues from it") {
  BlockManager manager(8, kBlock, true);
  BlockTable first, second;
  REQUIRE(manager.allocate({}, 12, first));
  REQUIRE(manager.allocate({}, 12, second));
  manager.publish(first, iota(4), "");
  manager.publish(second, iota(12), "");
  const PrefixMatch match = manager.match(iota(13), "");
  REQUIRE(match.num_tokens == 12);
  CHECK(match.entries[0].block == first.ids()[0]);
  CHECK(match.entries[1].block == second.ids()[1]);
  CHECK(match.entries[2].block == second.ids()[2]);
}

TEST_CASE("a sequence whose prefix entry is gone publishes its own blocks") {
  BlockManager manager(4, kBlock, true);
  BlockTable first, second, third;
  REQUIRE(manager.allocate({}, 4, first));
  REQUIRE(manager.allocate({}, 8, second));
  manager.publish(first, iota(4), "");
  manager.publish(second, iota(4), "");
  CHECK_FALSE(manager.prefix_cache().contains(second.ids()[0]));
  first.clear();
  REQUIRE(manager.allocate({}, 8, third));  // takes the last free blocks, the cached one too
  CHECK(manager.num_blocks_cached() == 0);
  manager.publish(second, iota(8), "");
  const PrefixMatch match = manager.match(iota(9), "");
  REQUIRE(match.num_tokens == 8);
  CHECK(match.entries[0].block == second.ids()[0]);
}

TEST_CASE("after a reset nothing computed before is found") {
  BlockManager manager(8, kBlock, true);
  BlockTable running;
  REQUIRE(manager.allocate({}, 12, running));
  manager.publish(running, iota(5), "");
  compute(manager, iota(8, 50));
  CHECK(manager.num_blocks_cached() == 3);
  manager.reset_prefix_cache();
  CHECK(manager.num_blocks_cached() == 0);
  CHECK(manager.num_blocks_used() == 3);
  // A sequence that began before mixes old and new: it stays out of the cache, and so does a fork.
  manager.publish(running, iota(12), "");
  BlockTable child = manager.fork(running, 12);
  manager.publish(child, iota(12), "");
  CHECK(manager.num_blocks_cached() == 0);
  CHECK(manager.match(iota(13), "").num_tokens == 0);
  compute(manager, iota(8, 50));
  CHECK(manager.match(iota(9, 50), "").num_tokens == 8);
}

}  // namespace
}  // namespace octavo
