#include "base/thread_pool.h"

#include <pthread.h>
#include <signal.h>

#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/cpu_topology.h"

namespace octavo {
namespace {

// Counts the forks between this process and the one that loaded the library.
std::atomic<uint32_t> fork_generation{0};

uint32_t current_fork_generation() {
  static const int registered = pthread_atfork(
      nullptr, nullptr, [] { fork_generation.fetch_add(1, std::memory_order_relaxed); });
  (void)registered;
  return fork_generation.load(std::memory_order_relaxed);
}

// The pool whose task this thread is in, and its number there.
thread_local const ThreadPool* active_pool = nullptr;
thread_local int32_t active_thread = 0;

inline void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Between two ops of a step lie a few microseconds, which a short spin bridges; 64 pauses are one
// to four microseconds, so the whole is at most some tens.
constexpr int kSpinRounds = 16;
constexpr int kPausesPerRound = 64;

template <typename Done>
bool spin(int rounds, const Done& done) {
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i < kPausesPerRound; ++i) {
      if (done()) return true;
      pause_cpu();
    }
  }
  return done();
}

// New threads inherit the mask: signals are for the application's threads.
class BlockSignals {
 public:
  BlockSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved_);
  }
  ~BlockSignals() { pthread_sigmask(SIG_SETMASK, &saved_, nullptr); }

 private:
  sigset_t saved_;
};

}  // namespace

ThreadPool::ThreadPool(int32_t num_threads)
    : num_threads_(num_threads), fork_generation_(current_fork_generation()) {
  if (num_threads < 1) {
    throw InvalidArgument(str_cat("num_threads: ", num_threads, " given; expected at least 1"));
  }
  // A spinning thread that shares its core steals from the one that it waits for.
  spin_rounds_ = num_threads <= num_affinity_cpus() ? kSpinRounds : 0;
  workers_ = std::make_unique<std::vector<std::thread>>();
  start_workers();
}

ThreadPool::~ThreadPool() {
  if (current_fork_generation() != fork_generation_) {
    static_cast<void>(workers_.release());
    return;
  }
  stop_workers();
}

void ThreadPool::start_workers() {
  workers_->reserve(static_cast<size_t>(num_threads_ - 1));
  const BlockSignals block;
  try {
    for (int32_t i = 1; i < num_threads_; ++i) workers_->emplace_back([this, i] { work(i); });
  } catch (const std::system_error& error) {
    const size_t started = workers_->size();
    stop_workers();
    throw Error(str_cat("num_threads: only ", started + 1, " of ", num_threads_,
                        " threads could be started (", error.what(), "); expected fewer threads"));
  }
}

void ThreadPool::stop_workers() {
  stopping_.store(true, std::memory_order_relaxed);
  wake_.fetch_add(1, std::memory_order_release);
  wake_.notify_all();
  for (std::thread& worker : *workers_) worker.join();
  workers_->clear();
}

void ThreadPool::run(int64_t num_tasks, Job job) {
  if (current_fork_generation() != fork_generation_) {
    throw Error(
        "engine: it was created before this process forked, and its threads are in the parent; "
        "expected a new engine, created in the child");
  }
  if (num_tasks <= 0) return;
  OCTAVO_CHECK(num_tasks <= INT32_MAX, "parallel_for of ", num_tasks, " tasks");
  if (active_pool == this) {
    for (int64_t task = 0; task < num_tasks; ++task) job.invoke(job.context, task, active_thread);
    return;
  }
  const std::lock_guard lock(caller_mutex_);
  publish(num_tasks, job);
  run_tasks(0);
  wait_until_done();
  if (failed_.load(std::memory_order_acquire)) {
    std::exception_ptr error;
    std::swap(error, error_);
    failed_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(error);
  }
}

void ThreadPool::publish(int64_t num_tasks, Job job) {
  job_ = job;
  num_tasks_ = static_cast<uint32_t>(num_tasks);
  unfinished_.store(num_tasks_, std::memory_order_relaxed);
  const uint64_t generation = (claim_.load(std::memory_order_relaxed) >> 32) + 1;
  claim_.store((generation << 32) | num_tasks_, std::memory_order_release);
  if (num_tasks == 1 || num_threads_ == 1) return;
  wake_.fetch_add(1, std::memory_order_release);
  wake_.notify_all();
}

void ThreadPool::run_tasks(int32_t thread) {
  uint64_t claim = claim_.load(std::memory_order_acquire);
  for (;;) {
    const uint32_t left = static_cast<uint32_t>(claim);
    if (left == 0) return;
    if (!claim_.compare_exchange_weak(claim, claim - 1, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      continue;
    }
    run_task(num_tasks_ - left, thread);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_all();
    claim = claim_.load(std::memory_order_acquire);
  }
}

void ThreadPool::run_task(int64_t task, int32_t thread) noexcept {
  if (failed_.load(std::memory_order_relaxed)) return;
  const ThreadPool* outer_pool = std::exchange(active_pool, this);
  const int32_t outer_thread = std::exchange(active_thread, thread);
  try {
    job_.invoke(job_.context, task, thread);
  } catch (...) {
    if (!failed_.exchange(true, std::memory_order_acq_rel)) error_ = std::current_exception();
  }
  active_pool = outer_pool;
  active_thread = outer_thread;
}

void ThreadPool::wait_until_done() {
  const auto done = [this] { return unfinished_.load(std::memory_order_acquire) == 0; };
  if (spin(spin_rounds_, done)) return;
  for (uint32_t left; (left = unfinished_.load(std::memory_order_acquire)) != 0;) {
    unfinished_.wait(left, std::memory_order_acquire);
  }
}

void ThreadPool::work(int32_t thread) {
  pthread_setname_np(pthread_self(), "octavo");
  uint32_t seen = 0;
  for (;;) {
    const auto woken = [&] { return wake_.load(std::memory_order_acquire) != seen; };
    if (!spin(spin_rounds_, woken)) wake_.wait(seen, std::memory_order_acquire);
    seen = wake_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    run_tasks(thread);
  }
}

}  // namespace octavo
