#include "cache/block_pool.h"

#include <doctest/doctest.h>

#include <vector>

#include "octavo/error.h"

namespace octavo {
namespace {

using Ids = std::vector<int32_t>;

TEST_CASE("a new pool hands out its blocks in order") {
  BlockPool pool(3);
  CHECK(pool.num_blocks() == 3);
  CHECK(pool.num_free() == 3);
  CHECK(pool.free_blocks() == Ids{0, 1, 2});
  CHECK(pool.allocate() == 0);
  CHECK(pool.allocate() == 1);
  CHECK(pool.ref_count(0) == 1);
  CHECK(pool.num_used() == 2);
  CHECK(pool.free_blocks() == Ids{2});
}

TEST_CASE("an empty pool and a pool without blocks are errors") {
  BlockPool pool(1);
  pool.allocate();
  CHECK_THROWS_AS(pool.allocate(), InternalError);
  CHECK_THROWS_AS(BlockPool(0), InternalError);
}

TEST_CASE("a block is free when its last reference goes") {
  BlockPool pool(2);
  const int32_t block = pool.allocate();
  pool.add_reference(block);
  CHECK(pool.ref_count(block) == 2);
  pool.release(block, true);
  CHECK(pool.num_used() == 1);
  pool.release(block, true);
  CHECK(pool.num_used() == 0);
  CHECK_THROWS_AS(pool.release(block, true), InternalError);
}

TEST_CASE("kept blocks are lost least recently released first") {
  BlockPool pool(4);
  for (int i = 0; i < 4; ++i) pool.allocate();
  for (const int32_t block : {2, 0, 3, 1}) pool.release(block, true);
  CHECK(pool.free_blocks() == Ids{2, 0, 3, 1});
  CHECK(pool.allocate() == 2);
  pool.release(2, true);
  CHECK(pool.free_blocks() == Ids{0, 3, 1, 2});
}

TEST_CASE("blocks without worth are handed out before all others") {
  BlockPool pool(3);
  for (int i = 0; i < 3; ++i) pool.allocate();
  pool.release(0, true);
  pool.release(1, false);
  pool.release(2, true);
  CHECK(pool.free_blocks() == Ids{1, 0, 2});
}

TEST_CASE("a free block can be taken back from anywhere in the list") {
  for (int32_t taken = 0; taken < 4; ++taken) {
    BlockPool pool(4);
    pool.add_reference(taken);
    CHECK(pool.ref_count(taken) == 1);
    CHECK(pool.num_free() == 3);
    Ids expected;
    for (int32_t block = 0; block < 4; ++block) {
      if (block != taken) expected.push_back(block);
    }
    CHECK(pool.free_blocks() == expected);
  }
}

TEST_CASE("ids outside the pool are errors") {
  BlockPool pool(2);
  CHECK_THROWS_AS(pool.add_reference(2), InternalError);
  CHECK_THROWS_AS(pool.add_reference(-1), InternalError);
  CHECK_THROWS_AS(pool.release(2, false), InternalError);
  CHECK_THROWS_AS(pool.ref_count(-1), InternalError);
}

}  // namespace
}  // namespace octavo
