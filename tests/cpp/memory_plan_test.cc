#include "engine/memory_plan.h"

#include <doctest/doctest.h>

#include "octavo/error.h"

namespace octavo {
namespace {

const MemoryNeeds kNeeds{
    .block_bytes = 1000, .block_size = 16, .max_model_len = 100, .max_num_seqs = 4};

TEST_CASE("blocks asked for by number are given") {
  CHECK(plan_kv_blocks({.num_kv_blocks = 3}, kNeeds, 0) == 3);
}

TEST_CASE("never more blocks than all sequences can fill") {
  CHECK(plan_kv_blocks({.kv_cache_memory_bytes = 1'000'000}, kNeeds, 0) == 7 * 4);
  CHECK(plan_kv_blocks({}, kNeeds, int64_t{1} << 40) == 7 * 4);
}

TEST_CASE("bytes bound the blocks") {
  CHECK(plan_kv_blocks({.kv_cache_memory_bytes = 5999}, kNeeds, 0) == 5);
  CHECK(plan_kv_blocks({}, kNeeds, 10'000) == 4);  // 40%
  MemoryNeeds large = kNeeds;
  large.max_model_len = 1 << 30;
  large.block_bytes = 1 << 20;
  CHECK(plan_kv_blocks({}, large, int64_t{1} << 40) == 4096);  // 4 GiB
}

TEST_CASE("too little for one block is an error that names the terms") {
  CHECK_THROWS_WITH_AS(plan_kv_blocks({.kv_cache_memory_bytes = 999}, kNeeds, 5000),
                       doctest::Contains("expected at least 1000 bytes"), OutOfMemory);
}

TEST_CASE("the machine has memory") { CHECK(available_memory_bytes() > 0); }

}  // namespace
}  // namespace octavo
