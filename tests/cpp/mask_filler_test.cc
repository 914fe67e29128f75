// MaskFiller: every mask is filled once, whoever does it; errors stay with their job.
#include "grammar/mask_filler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace octavo {
namespace {

class FakeMatcher final : public GrammarMatcher {
 public:
  void fill_mask(std::span<uint32_t> mask) override {
    ++num_fills;
    if (yields) std::this_thread::yield();
    if (fails) throw std::runtime_error("no mask");
    std::fill(mask.begin(), mask.end(), value);
  }
  std::unique_ptr<GrammarMatcher> fork() const override { return nullptr; }
  bool accept(int32_t) override { return true; }
  bool completed() const override { return false; }
  bool terminated() const override { return false; }

  uint32_t value = 0;
  bool fails = false, yields = false;
  std::atomic<int> num_fills{0};
};

struct Batch {
  explicit Batch(size_t size) : matchers(size), masks(size, std::vector<uint32_t>(3, 77)) {
    for (size_t i = 0; i < size; ++i) {
      matchers[i].value = static_cast<uint32_t>(i) + 1;
      jobs.push_back({&matchers[i], masks[i]});
    }
  }
  std::vector<FakeMatcher> matchers;
  std::vector<std::vector<uint32_t>> masks;
  std::vector<MaskFiller::Job> jobs;
};

void check_filled(const Batch& batch, int times = 1) {
  for (size_t i = 0; i < batch.jobs.size(); ++i) {
    CHECK(batch.matchers[i].num_fills == times);
    CHECK(batch.jobs[i].error.empty());
    CHECK(batch.masks[i] == std::vector<uint32_t>(3, static_cast<uint32_t>(i) + 1));
  }
}

TEST_CASE("every mask is filled once, with any number of threads") {
  for (const int32_t threads : {0, 1, 2, 5}) {
    MaskFiller filler(threads);
    for (const size_t size : {0, 1, 2, 64}) {
      Batch batch(size);
      filler.start(batch.jobs);
      filler.wait();
      check_filled(batch);
    }
  }
}

TEST_CASE("thousands of short steps: no wake-up is lost, no job of an old step is taken") {
  MaskFiller filler(3);
  Batch batch(5);
  batch.matchers[2].yields = true;
  for (int step = 1; step <= 3000; ++step) {
    filler.start(batch.jobs);
    if (step % 3 == 0) std::this_thread::yield();
    filler.wait();
    CHECK(std::all_of(batch.matchers.begin(), batch.matchers.end(),
                      [&](const FakeMatcher& matcher) { return matcher.num_fills == step; }));
  }
  check_filled(batch, 3000);
}

TEST_CASE("what a matcher throws is its job's error, and its mask allows nothing") {
  MaskFiller filler(2);
  Batch batch(8);
  batch.matchers[3].fails = true;
  for (int step = 0; step < 2; ++step) {
    filler.start(batch.jobs);
    filler.wait();
    CHECK(batch.jobs[3].error == "no mask");
    CHECK(batch.masks[3] == std::vector<uint32_t>(3, 0));
    CHECK(batch.jobs[4].error.empty());
    CHECK(batch.masks[4] == std::vector<uint32_t>(3, 5));
  }
  batch.matchers[3].fails = false;
  filler.start(batch.jobs);
  filler.wait();
  CHECK(batch.jobs[3].error.empty());
}

TEST_CASE("wait without start returns, and a filler that never started ends") {
  MaskFiller filler(2);
  filler.wait();
  MaskFiller(4);
}

}  // namespace
}  // namespace octavo
