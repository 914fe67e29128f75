#include "grammar/compile_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace octavo {
namespace {

using Clock = std::chrono::steady_clock;

class Job final : public GrammarJob {
 public:
  Job(CompilePool::Make make_grammar, std::chrono::milliseconds time_limit)
      : make(std::move(make_grammar)), limit(time_limit) {}

  State state() const override { return state_.load(std::memory_order_acquire); }
  std::string error() const override { return state() == State::kFailed ? error_ : ""; }
  const Grammar& grammar() const override { return *grammar_; }

  // Under the core's lock, and once.
  void succeed(std::unique_ptr<Grammar> grammar) {
    grammar_ = std::move(grammar);
    state_.store(State::kReady, std::memory_order_release);
  }
  void fail(std::string error) {
    error_ = std::move(error);
    state_.store(State::kFailed, std::memory_order_release);
  }

  CompilePool::Make make;  // its thread's alone once the job has begun
  const std::chrono::milliseconds limit;

 private:
  std::string error_;
  std::unique_ptr<Grammar> grammar_;
  std::atomic<State> state_{State::kCompiling};
};

struct Worker {
  std::thread thread;
  std::shared_ptr<Job> job;  // what it makes now, if anything
  Clock::time_point deadline;
  bool left_behind = false;
};

// A limit may be as good as endless.
Clock::time_point deadline_of(std::chrono::milliseconds limit) {
  return Clock::now() + std::min(limit, std::chrono::milliseconds(std::chrono::hours(24)));
}

constexpr const char* kNoThread =
    "timed out: structures that took longer than their time hold all threads of the compiler";

std::string time_over(std::chrono::milliseconds limit) {
  return "timed out: it was not compiled within " + std::to_string(limit.count()) + " ms";
}

}  // namespace

struct CompilePool::Core : std::enable_shared_from_this<CompilePool::Core> {
  Core(int32_t threads, OnDone done)
      : num_threads(std::max(threads, 1)), on_done(std::move(done)) {}

  struct Overdue {
    std::shared_ptr<Job> job;
    bool begun;
  };

  // All under the lock.
  void start_threads();
  void add_worker();
  bool take_job(Worker& self, std::unique_lock<std::mutex>& lock);
  bool finish_job(Worker& self, std::unique_ptr<Grammar> grammar, std::string error);
  void end(std::list<Worker>::iterator self);
  std::vector<Overdue> take_overdue();
  void wait_for_deadline(std::unique_lock<std::mutex>& lock);
  int32_t num_live() const { return static_cast<int32_t>(workers.size()) - num_left; }
  // What the threads run.
  void work(std::list<Worker>::iterator self);
  void watch();

  const int32_t num_threads;
  const OnDone on_done;
  mutable std::mutex mutex;
  std::condition_variable wake_workers, wake_watcher, wake_destructor;
  std::deque<std::shared_ptr<Job>> waiting;
  std::list<Worker> workers;
  std::vector<std::thread> ended;  // to be joined
  std::thread watcher;
  int32_t num_left = 0;  // of workers, those left behind
  bool stopping = false;
  bool watching = true;
};

void CompilePool::Core::start_threads() {
  if (!watcher.joinable()) watcher = std::thread([this] { watch(); });
  const int32_t most = num_threads + kSpareThreads;
  while (num_live() < num_threads && static_cast<int32_t>(workers.size()) < most) add_worker();
}

void CompilePool::Core::add_worker() {
  for (std::thread& thread : ended) thread.join();  // they need no lock any more
  ended.clear();
  const auto self = workers.emplace(workers.end());
  try {
    self->thread = std::thread([core = shared_from_this(), self] { core->work(self); });
  } catch (...) {
    workers.erase(self);
    throw;
  }
}

bool CompilePool::Core::take_job(Worker& self, std::unique_lock<std::mutex>& lock) {
  wake_workers.wait(lock, [&] { return stopping || !waiting.empty(); });
  if (stopping) return false;
  self.job = std::move(waiting.front());
  waiting.pop_front();
  self.deadline = deadline_of(self.job->limit);
  wake_watcher.notify_one();
  return true;
}

// False: nobody waits for it any more.
bool CompilePool::Core::finish_job(Worker& self, std::unique_ptr<Grammar> grammar,
                                   std::string error) {
  const std::shared_ptr<Job> job = std::move(self.job);
  self.job = nullptr;
  if (self.left_behind) {
    self.left_behind = false;
    --num_left;
    return false;
  }
  if (grammar) {
    job->succeed(std::move(grammar));
  } else {
    job->fail(std::move(error));
  }
  return true;
}

void CompilePool::Core::end(std::list<Worker>::iterator self) {
  if (self->thread.joinable()) ended.push_back(std::move(self->thread));
  workers.erase(self);
  wake_destructor.notify_all();
}

void CompilePool::Core::work(std::list<Worker>::iterator self) {
  std::unique_lock lock(mutex);
  while (num_live() <= num_threads && take_job(*self, lock)) {
    const std::shared_ptr<Job> job = self->job;
    lock.unlock();
    std::unique_ptr<Grammar> grammar;
    std::string error = "it could not be compiled";
    try {
      grammar = job->make();
    } catch (const std::exception& e) {
      error = e.what();
    } catch (...) {
    }
    job->make = nullptr;
    lock.lock();
    if (finish_job(*self, std::move(grammar), std::move(error))) {
      lock.unlock();
      on_done(*job, true);
      lock.lock();
    }
  }
  end(self);
}

std::vector<CompilePool::Core::Overdue> CompilePool::Core::take_overdue() {
  std::vector<Overdue> overdue;
  const Clock::time_point now = Clock::now();
  for (Worker& worker : workers) {
    if (!worker.job || worker.left_behind || worker.deadline > now) continue;
    worker.left_behind = true;
    ++num_left;
    worker.job->fail(time_over(worker.job->limit));
    overdue.push_back({worker.job, true});
  }
  if (overdue.empty()) return overdue;
  wake_destructor.notify_all();
  if (stopping) return overdue;
  try {
    start_threads();
  } catch (const std::exception&) {
    // No thread to be had. One that comes back goes on.
  }
  if (num_live() > 0) return overdue;
  for (const std::shared_ptr<Job>& job : waiting) {
    job->fail(kNoThread);
    overdue.push_back({job, false});
  }
  waiting.clear();
  return overdue;
}

void CompilePool::Core::wait_for_deadline(std::unique_lock<std::mutex>& lock) {
  std::optional<Clock::time_point> next;
  for (const Worker& worker : workers) {
    if (!worker.job || worker.left_behind) continue;
    next = next ? std::min(*next, worker.deadline) : worker.deadline;
  }
  if (next) {
    wake_watcher.wait_until(lock, *next);
  } else {
    wake_watcher.wait(lock);
  }
}

void CompilePool::Core::watch() {
  std::unique_lock lock(mutex);
  while (watching) {
    const auto overdue = take_overdue();
    if (overdue.empty()) {
      wait_for_deadline(lock);
      continue;
    }
    lock.unlock();
    for (const Overdue& late : overdue) on_done(*late.job, late.begun);
    lock.lock();
  }
}

CompilePool::CompilePool(int32_t num_threads, OnDone on_done)
    : core_(std::make_shared<Core>(num_threads, std::move(on_done))) {}

CompilePool::~CompilePool() {
  Core& core = *core_;
  std::unique_lock lock(core.mutex);
  core.stopping = true;
  for (const std::shared_ptr<Job>& job : core.waiting) job->fail("the engine has ended");
  core.waiting.clear();
  core.wake_workers.notify_all();
  core.wake_destructor.wait(lock, [&] { return core.num_live() == 0; });
  for (Worker& worker : core.workers) worker.thread.detach();
  std::vector<std::thread> threads = std::move(core.ended);
  if (core.watcher.joinable()) threads.push_back(std::move(core.watcher));
  core.watching = false;
  core.wake_watcher.notify_all();
  lock.unlock();
  for (std::thread& thread : threads) thread.join();
}

std::shared_ptr<GrammarJob> CompilePool::submit(Make make, std::chrono::milliseconds limit,
                                                bool* taken) {
  auto job = std::make_shared<Job>(std::move(make), limit);
  std::lock_guard lock(core_->mutex);
  core_->start_threads();
  const bool is_taken = core_->num_live() > 0;
  if (taken != nullptr) *taken = is_taken;
  if (!is_taken) {
    job->fail(kNoThread);
    return job;
  }
  core_->waiting.push_back(job);
  core_->wake_workers.notify_one();
  return job;
}

int32_t CompilePool::num_left_behind() const {
  std::lock_guard lock(core_->mutex);
  return core_->num_left;
}

}  // namespace octavo
