// CompilePool: time limits, threads left behind, and ends at every moment.
#include "grammar/compile_pool.h"

#include <doctest/doctest.h>

#include <atomic>
#include <condition_variable>
#include <latch>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace octavo {
namespace {

using namespace std::chrono_literals;
using State = GrammarJob::State;

class FakeGrammar final : public Grammar {
 public:
  std::unique_ptr<GrammarMatcher> new_matcher(std::span<const int32_t>) const override {
    return nullptr;
  }
  int64_t memory_bytes() const override { return 7; }
};

std::unique_ptr<Grammar> make_fake() { return std::make_unique<FakeGrammar>(); }

// What a test waits for, and what the pool told of.
class Log {
 public:
  CompilePool::OnDone on_done() {
    return [this](const GrammarJob& job, bool begun) {
      std::lock_guard lock(mutex_);
      begun_[&job] = begun;
      changed_.notify_all();
    };
  }
  bool wait(const GrammarJob& job) {  // answers `begun`
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return begun_.count(&job) > 0; });
    return begun_[&job];
  }
  size_t size() {
    std::lock_guard lock(mutex_);
    return begun_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<const GrammarJob*, bool> begun_;
};

// Makes that wait until the test lets them go.
class Gate {
 public:
  CompilePool::Make make() {
    return [gate = state_] {
      ++gate->entered;
      gate->open.wait();
      ++gate->left;
      return make_fake();
    };
  }
  void open() { state_->open.count_down(); }
  int entered() const { return state_->entered; }
  int left() const { return state_->left; }

 private:
  struct Shared {
    std::latch open{1};
    std::atomic<int> entered{0}, left{0};
  };
  std::shared_ptr<Shared> state_ = std::make_shared<Shared>();
};

template <typename Condition>
void wait_until(Condition condition) {
  while (!condition()) std::this_thread::sleep_for(1ms);
}

TEST_CASE("a job is ready, or fails with what was thrown, and both are told") {
  Log log;
  CompilePool pool(2, log.on_done());
  const auto good = pool.submit(make_fake, 1h);
  const auto bad =
      pool.submit([]() -> std::unique_ptr<Grammar> { throw std::runtime_error("so"); }, 1h);
  const auto empty = pool.submit([]() -> std::unique_ptr<Grammar> { return nullptr; }, 1h);
  for (const auto& job : {good, bad, empty}) CHECK(log.wait(*job));
  CHECK(good->state() == State::kReady);
  CHECK(good->error().empty());
  CHECK(good->grammar().memory_bytes() == 7);
  CHECK(bad->state() == State::kFailed);
  CHECK(bad->error() == "so");
  CHECK(empty->state() == State::kFailed);
}

TEST_CASE("a job that takes too long fails in time, and another thread takes over") {
  Gate gate;
  Log log;
  {
    CompilePool pool(1, log.on_done());
    const auto slow = pool.submit(gate.make(), 10ms);
    const auto quick = pool.submit(make_fake, 1h);
    CHECK(log.wait(*slow));
    CHECK(slow->state() == State::kFailed);
    CHECK(slow->error().find("timed out") == 0);
    CHECK(log.wait(*quick));
    CHECK(quick->state() == State::kReady);
    CHECK(pool.num_left_behind() == 1);
    gate.open();
    wait_until([&] { return pool.num_left_behind() == 0; });
    CHECK(slow->state() == State::kFailed);  // too late
    const auto after = pool.submit(make_fake, 1h);
    log.wait(*after);
    CHECK(after->state() == State::kReady);
  }
  CHECK(log.size() == 3);
}

TEST_CASE("with all threads left behind, jobs fail at once until one comes back") {
  Gate gate;
  Log log;
  CompilePool pool(1, log.on_done());
  std::vector<std::shared_ptr<GrammarJob>> slow;
  for (int i = 0; i < 1 + CompilePool::kSpareThreads; ++i)
    slow.push_back(pool.submit(gate.make(), 5ms));
  for (const auto& job : slow) log.wait(*job);
  wait_until([&] { return pool.num_left_behind() == 1 + CompilePool::kSpareThreads; });
  bool taken = true;
  const auto refused = pool.submit(make_fake, 1h, &taken);
  CHECK(!taken);
  CHECK(refused->state() == State::kFailed);
  CHECK(refused->error().find("hold all threads") != std::string::npos);
  gate.open();
  wait_until([&] { return pool.num_left_behind() == 0; });
  const auto after = pool.submit(make_fake, 1h, &taken);
  CHECK(taken);
  log.wait(*after);
  CHECK(after->state() == State::kReady);
}

TEST_CASE("the destructor drops what waits, and leaves behind what does not end") {
  Gate gate;
  Log log;
  std::shared_ptr<GrammarJob> running, waiting;
  {
    CompilePool pool(1, log.on_done());
    running = pool.submit(gate.make(), 20ms);
    wait_until([&] { return gate.entered() == 1; });
    waiting = pool.submit(gate.make(), 20ms);
  }
  CHECK(running->state() == State::kFailed);
  CHECK(waiting->state() == State::kFailed);
  CHECK(gate.entered() == 1);
  const size_t told = log.size();
  gate.open();
  wait_until([&] { return gate.left() == 1; });
  CHECK(log.size() == told);
}

TEST_CASE("the destructor waits for what ends in time") {
  Log log;
  std::shared_ptr<GrammarJob> job;
  std::atomic<bool> entered{false};
  {
    CompilePool pool(2, log.on_done());
    job = pool.submit(
        [&] {
          entered = true;
          std::this_thread::sleep_for(20ms);
          return make_fake();
        },
        1h);
    wait_until([&] { return entered.load(); });
  }
  CHECK(job->state() == State::kReady);
  CHECK(log.size() == 1);
  CompilePool(3, log.on_done());  // never used
}

TEST_CASE("submissions from several threads at once") {
  Log log;
  std::vector<std::shared_ptr<GrammarJob>> jobs(400);
  CompilePool pool(3, log.on_done());
  {
    std::vector<std::jthread> threads;
    for (size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (size_t i = t; i < jobs.size(); i += 4) {
          jobs[i] = pool.submit(i % 7 == 0 ? CompilePool::Make([]() -> std::unique_ptr<Grammar> {
                                  throw std::runtime_error("bad");
                                })
                                           : CompilePool::Make(make_fake),
                                1h);
        }
      });
    }
  }
  for (size_t i = 0; i < jobs.size(); ++i) {
    log.wait(*jobs[i]);
    CHECK(jobs[i]->state() == (i % 7 == 0 ? State::kFailed : State::kReady));
  }
}

}  // namespace
}  // namespace octavo
