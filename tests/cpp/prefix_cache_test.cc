#include "cache/prefix_cache.h"

#include <doctest/doctest.h>

#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "octavo/error.h"

namespace octavo {
namespace {

using Tokens = std::vector<int32_t>;

TEST_CASE("an entry is found by its parent and all of its tokens") {
  PrefixCache cache(8, 2);
  const Tokens a = {1, 2}, b = {3, 4};
  CHECK_FALSE(cache.find({"", 0, a}));
  const PrefixEntry first = cache.insert({"", 0, a}, 5);
  const PrefixEntry second = cache.insert({"", first.id, b}, 2);
  CHECK(cache.find({"", 0, a})->block == 5);
  CHECK(cache.find({"", first.id, b})->block == 2);
  CHECK(cache.find({"", first.id, b})->id == second.id);
  CHECK_FALSE(cache.find({"", 0, b}));
  CHECK_FALSE(cache.find({"", first.id, a}));
  CHECK_FALSE(cache.find({"", second.id, b}));
  CHECK_FALSE(cache.find({"", 0, Tokens{1, 3}}));
  CHECK(cache.num_entries() == 2);
  cache.check();
}

TEST_CASE("a key has as many tokens as a block") {
  PrefixCache cache(2, 2);
  CHECK_THROWS_AS(cache.find({"", 0, Tokens{1}}), InternalError);
  CHECK_THROWS_AS(cache.insert({"", 0, Tokens{1, 2, 3}}, 0), InternalError);
}

TEST_CASE("the same tokens after different prefixes are different entries") {
  PrefixCache cache(8, 1);
  const Tokens same = {7};
  const PrefixEntry x = cache.insert({"", 0, Tokens{1}}, 0);
  const PrefixEntry y = cache.insert({"", 0, Tokens{2}}, 1);
  cache.insert({"", x.id, same}, 2);
  CHECK_FALSE(cache.find({"", y.id, same}));
  cache.insert({"", y.id, same}, 3);
  CHECK(cache.find({"", x.id, same})->block == 2);
  CHECK(cache.find({"", y.id, same})->block == 3);
}

TEST_CASE("the first holder of a content stays") {
  PrefixCache cache(4, 1);
  const PrefixEntry first = cache.insert({"", 0, Tokens{1}}, 0);
  const PrefixEntry again = cache.insert({"", 0, Tokens{1}}, 1);
  CHECK(again.id == first.id);
  CHECK(again.block == 0);
  CHECK_FALSE(cache.contains(1));
  CHECK(cache.num_entries() == 1);
}

TEST_CASE("what follows an erased entry is unreachable, also when the entry comes back") {
  PrefixCache cache(4, 1);
  const PrefixEntry first = cache.insert({"", 0, Tokens{1}}, 0);
  const PrefixEntry second = cache.insert({"", first.id, Tokens{2}}, 1);
  cache.erase(0);
  CHECK_FALSE(cache.contains(first));
  CHECK(cache.contains(second));
  const PrefixEntry back = cache.insert({"", 0, Tokens{1}}, 0);
  CHECK(back.id != first.id);
  CHECK_FALSE(cache.find({"", back.id, Tokens{2}}));
  CHECK(cache.num_entries() == 2);
  // The block of the unreachable entry can be registered anew.
  CHECK(cache.insert({"", back.id, Tokens{2}}, 1).block == 1);
  CHECK(cache.find({"", back.id, Tokens{2}})->block == 1);
  CHECK(cache.num_entries() == 2);
  cache.check();
}

TEST_CASE("salts isolate and are forgotten with their last entry") {
  PrefixCache cache(4, 1);
  const PrefixEntry a = cache.insert({"a", 0, Tokens{1}}, 0);
  CHECK_FALSE(cache.find({"b", 0, Tokens{1}}));
  CHECK_FALSE(cache.find({"", 0, Tokens{1}}));
  const PrefixEntry b = cache.insert({"b", 0, Tokens{1}}, 1);
  cache.insert({"b", b.id, Tokens{2}}, 2);
  CHECK(cache.find({"a", 0, Tokens{1}})->id == a.id);
  CHECK(cache.find({"b", 0, Tokens{1}})->id == b.id);
  CHECK(cache.num_salts() == 2);
  cache.erase(0);
  CHECK(cache.num_salts() == 1);
  cache.erase(1);
  CHECK(cache.num_salts() == 0);
  cache.check();

  // Whatever tenants come and go, no more salts are remembered than there are blocks.
  for (int i = 0; i < 1000; ++i) {
    cache.erase(i % 4);
    cache.insert({std::to_string(i), 0, Tokens{1}}, i % 4);
    CHECK(cache.num_salts() <= 4);
  }
  cache.clear();
  CHECK(cache.num_salts() == 0);
  CHECK(cache.num_entries() == 0);
  cache.check();
}

// One bucket, so that every pair of keys collides, and few tokens, so that keys are near each
// other.
TEST_CASE("colliding keys are never confused") {
  std::mt19937_64 random(1);
  for (const int32_t num_buckets : {1, 2, 0}) {
    PrefixCache cache(64, 3, num_buckets);
    std::set<std::pair<uint64_t, Tokens>> model;
    std::vector<std::pair<uint64_t, Tokens>> key_of(64);
    std::vector<uint64_t> parents = {0};
    for (int i = 0; i < 5000; ++i) {
      const int32_t block = static_cast<int32_t>(random() % 64);
      const uint64_t parent = parents[random() % parents.size()];
      const Tokens tokens = {static_cast<int32_t>(random() % 3), static_cast<int32_t>(random() % 3),
                             static_cast<int32_t>(random() % 3)};
      CAPTURE(i);
      REQUIRE(cache.find({"", parent, tokens}).has_value() == model.contains({parent, tokens}));
      if (cache.contains(block)) {
        model.erase(key_of[block]);
        cache.erase(block);
      } else if (model.insert({parent, tokens}).second) {
        const PrefixEntry entry = cache.insert({"", parent, tokens}, block);
        REQUIRE(entry.block == block);
        key_of[block] = {parent, tokens};
        parents.push_back(entry.id);
        if (parents.size() > 8) parents.erase(parents.begin() + 1);
      }
      cache.check();
    }
  }
}

TEST_CASE("the hash depends on the key, the parent and every token") {
  const KeyedHash hash({1, 2}), other({1, 3});
  const Tokens tokens = {1, 2, 3};
  CHECK(hash(0, tokens) == hash(0, tokens));
  CHECK(hash(0, tokens) != other(0, tokens));
  CHECK(hash(0, tokens) != hash(1, tokens));
  CHECK(hash(0, tokens) != hash(0, Tokens{1, 2, 3, 0}));
  for (size_t i = 0; i < tokens.size(); ++i) {
    Tokens changed = tokens;
    changed[i] += 1;
    CHECK(hash(0, tokens) != hash(0, changed));
  }
}

}  // namespace
}  // namespace octavo
