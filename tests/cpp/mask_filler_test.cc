#include "grammar/mask_filler.h"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

namespace octavo {
namespace {

// Writes its number; may be slow, or fail.
struct Numbered : GrammarMatcher {
  void fill_mask(std::span<uint32_t> mask) override {
    ++calls;
    if (delay.count() > 0) std::this_thread::sleep_for(delay);
    if (fails) throw std::runtime_error("no mask");
    for (uint32_t& word : mask) word = number;
  }
  bool accept(int32_t) override { return true; }
  bool completed() const override { return false; }
  bool terminated() const override { return false; }
  std::unique_ptr<GrammarMatcher> fork() const override { return nullptr; }

  uint32_t number = 0;
  std::chrono::microseconds delay{0};
  bool fails = false;
  std::atomic<int> calls{0};
};

struct Step {
  explicit Step(size_t count) : matchers(count), masks(count, std::vector<uint32_t>(3)) {
    for (size_t i = 0; i < count; ++i) {
      matchers[i].number = static_cast<uint32_t>(i + 1);
      jobs.push_back({.matcher = &matchers[i], .mask = masks[i]});
    }
  }
  std::vector<Numbered> matchers;
  std::vector<std::vector<uint32_t>> masks;
  std::vector<MaskFiller::Job> jobs;
};

TEST_CASE("every mask is filled once, with any number of threads, step after step") {
  for (int32_t threads : {0, 1, 2, 4}) {
    MaskFiller filler(threads);
    for (size_t round = 0; round < 300; ++round) {
      Step step(round % 7);
      if (round % 3 == 0 && !step.jobs.empty()) {
        step.matchers[0].delay = std::chrono::microseconds(200);
      }
      filler.start(step.jobs);
      filler.wait();
      for (size_t i = 0; i < step.jobs.size(); ++i) {
        CHECK(step.matchers[i].calls == 1);
        CHECK(step.masks[i] == std::vector<uint32_t>(3, static_cast<uint32_t>(i + 1)));
        CHECK(step.jobs[i].error.empty());
      }
    }
  }
}

TEST_CASE("threads fill while the caller does something else") {
  MaskFiller filler(1);
  Step step(4);
  filler.start(step.jobs);
  while (step.matchers[3].calls == 0) std::this_thread::yield();  // nobody has called wait()
  filler.wait();
  CHECK(step.masks[3][0] == 4);
}

TEST_CASE("a matcher that fails spoils its own mask alone") {
  MaskFiller filler(2);
  Step step(5);
  step.matchers[2].fails = true;
  filler.start(step.jobs);
  filler.wait();
  CHECK(step.jobs[2].error == "no mask");
  CHECK(step.masks[2] == std::vector<uint32_t>(3, 0));
  CHECK(step.jobs[3].error.empty());
  CHECK(step.masks[4][0] == 5);
}

TEST_CASE("waiting without a start returns, and it may be destroyed with jobs unfilled") {
  MaskFiller filler(2);
  filler.wait();
  Step step(3);
  for (Numbered& matcher : step.matchers) matcher.delay = std::chrono::microseconds(2000);
  {
    MaskFiller other(1);
    other.start(step.jobs);
    other.wait();
  }
  CHECK(step.masks[2][0] == 3);
}

}  // namespace
}  // namespace octavo
