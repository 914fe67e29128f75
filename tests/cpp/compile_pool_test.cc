#include "grammar/compile_pool.h"

#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
#include <thread>

namespace octavo {
namespace {

using State = GrammarJob::State;
using std::chrono::milliseconds;

struct Nothing : Grammar {
  std::unique_ptr<GrammarMatcher> new_matcher(std::span<const int32_t>) const override {
    return nullptr;
  }
  int64_t memory_bytes() const override { return 1; }
};

State settled(const GrammarJob& job) {
  while (job.state() == State::kCompiling) std::this_thread::yield();
  return job.state();
}

CompilePool::Make quick() {
  return [] { return std::make_unique<Nothing>(); };
}

// Goes on until it is let go.
CompilePool::Make endless(const std::shared_ptr<std::atomic<bool>>& go_on) {
  return [go_on]() -> std::unique_ptr<Grammar> {
    while (*go_on) std::this_thread::sleep_for(milliseconds(1));
    return std::make_unique<Nothing>();
  };
}

constexpr milliseconds kLong(600'000), kShort(10);

TEST_CASE("jobs are made, or fail with what was thrown, and each is reported once") {
  std::atomic<int> reported{0};
  {
    CompilePool pool(2, [&](const GrammarJob&) { ++reported; });
    const auto made = pool.submit(quick(), kLong);
    const auto thrown = pool.submit(
        []() -> std::unique_ptr<Grammar> { throw std::runtime_error("too big"); }, kLong);
    CHECK(settled(*made) == State::kReady);
    CHECK(made->grammar().memory_bytes() == 1);
    CHECK(settled(*thrown) == State::kFailed);
    CHECK(thrown->error() == "too big");
  }
  CHECK(reported == 2);
}

TEST_CASE("a job whose time is over fails, and the others go on") {
  const auto go_on = std::make_shared<std::atomic<bool>>(true);
  CompilePool pool(1, [](const GrammarJob&) {});
  const auto slow = pool.submit(endless(go_on), kShort);
  const auto next = pool.submit(quick(), kLong);  // behind it, on the only thread
  CHECK(settled(*slow) == State::kFailed);
  CHECK(slow->error().starts_with("timed out"));
  CHECK(settled(*next) == State::kReady);
  CHECK(pool.num_left_behind() == 1);
  *go_on = false;
  while (pool.num_left_behind() > 0) std::this_thread::yield();
  CHECK(slow->state() == State::kFailed);  // it came too late
}

TEST_CASE("when every spare thread is held, jobs fail at once, until one comes back") {
  const auto go_on = std::make_shared<std::atomic<bool>>(true);
  CompilePool pool(1, [](const GrammarJob&) {});
  for (int32_t i = 0; i < 1 + CompilePool::kSpareThreads; ++i) {
    CHECK(settled(*pool.submit(endless(go_on), kShort)) == State::kFailed);
  }
  const auto refused = pool.submit(quick(), kLong);
  CHECK(refused->state() == State::kFailed);
  CHECK(refused->error().find("all threads") != std::string::npos);
  *go_on = false;
  while (pool.num_left_behind() > 0) std::this_thread::yield();
  CHECK(settled(*pool.submit(quick(), kLong)) == State::kReady);
}

TEST_CASE("it ends with jobs waiting and running, and leaves behind what is overdue") {
  const auto go_on = std::make_shared<std::atomic<bool>>(true);
  std::shared_ptr<GrammarJob> overdue, waiting;
  {
    CompilePool pool(1, [](const GrammarJob&) {});
    overdue = pool.submit(endless(go_on), kShort);
    waiting = pool.submit(quick(), kLong);
  }
  CHECK(overdue->state() == State::kFailed);
  CHECK(waiting->state() != State::kCompiling);
  *go_on = false;
}

}  // namespace
}  // namespace octavo
