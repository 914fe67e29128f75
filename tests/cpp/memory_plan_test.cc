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
  CHECK(plan_kv_blocks({}, kNeeds, 4000) == 4);
  MemoryNeeds large = kNeeds;
  large.max_model_len = 1 << 30;
  large.block_bytes = 1 << 20;
  CHECK(plan_kv_blocks({}, large, int64_t{4} << 30) == 4096);
}

TEST_CASE("the host's default is 40% of what is free, and 4 GiB at most") {
  CHECK(default_kv_bytes({}, std::nullopt, 10'000) == 4000);
  CHECK(default_kv_bytes({}, std::nullopt, int64_t{1} << 40) == int64_t{4} << 30);
}

TEST_CASE("a device's default is what its share leaves beside what is there") {
  const DeviceMemory device{.free_at_start = 1000, .free = 700};
  CHECK(default_kv_bytes({.gpu_memory_utilization = 0.75}, device, 0) == 450);
  CHECK(default_kv_bytes({.gpu_memory_utilization = 1.0}, device, 0) == 700);
  CHECK(default_kv_bytes({.gpu_memory_utilization = 0.25}, device, 0) == 0);
}

TEST_CASE("too little for one block is an error that names the terms") {
  CHECK_THROWS_WITH_AS(plan_kv_blocks({.kv_cache_memory_bytes = 999}, kNeeds, 5000),
                       doctest::Contains("expected at least 1000 bytes"), OutOfMemory);
}

TEST_CASE("the machine has memory") { CHECK(available_memory_bytes() > 0); }

}  // namespace
}  // namespace octavo
