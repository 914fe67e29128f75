// A pool of threads for data-parallel loops. Owned by the back end that computes with it; loops are
// started by one thread at a time, which takes part. Nothing is allocated in a loop, and idle
// workers sleep. A process forked from the owner's cannot use it.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace octavo {

class ThreadPool {
 public:
  // `num_threads` includes the caller of parallel_for; at least 1.
  explicit ThreadPool(int32_t num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int32_t num_threads() const { return num_threads_; }

  // Calls fn(task) or fn(task, thread) for each task in [0, num_tasks), in any order, and returns
  // when all are done. `thread` is in [0, num_threads()), and no two calls at one time have the
  // same. The first exception of a task is rethrown here; the tasks not begun by then are dropped.
  // A call from inside a task runs inline. Throws Error in a forked process.
  template <typename Fn>
  void parallel_for(int64_t num_tasks, Fn&& fn) {
    using Function = std::remove_reference_t<Fn>;
    const auto invoke = [](void* context, int64_t task, int32_t thread) {
      auto& function = *static_cast<Function*>(context);
      if constexpr (std::is_invocable_v<Function&, int64_t, int32_t>) {
        function(task, thread);
      } else {
        function(task);
      }
    };
    run(num_tasks, Job{invoke, const_cast<void*>(static_cast<const void*>(&fn))});
  }

 private:
  struct Job {
    void (*invoke)(void* context, int64_t task, int32_t thread);
    void* context;
  };

  void run(int64_t num_tasks, Job job);
  void publish(int64_t num_tasks, Job job);
  void wait_until_done();
  void work(int32_t thread);
  void run_tasks(int32_t thread);
  void run_task(int64_t task, int32_t thread) noexcept;
  void start_workers();
  void stop_workers();

  const int32_t num_threads_;
  const uint32_t fork_generation_;
  int spin_rounds_ = 0;

  // (generation of the loop, tasks left to claim). A worker that wakes late, with an old generation
  // in its hands, claims nothing, so nobody waits for it. The job is written only between loops,
  // and read only between a claim and its end.
  alignas(64) std::atomic<uint64_t> claim_{0};
  Job job_{};
  uint32_t num_tasks_ = 0;
  alignas(64) std::atomic<uint32_t> unfinished_{0};  // tasks
  alignas(64) std::atomic<uint32_t> wake_{0};        // counts loops; sleeping workers wait on it
  std::atomic<bool> stopping_{false};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;  // written by whoever sets failed_

  std::mutex caller_mutex_;
  // Leaked in a forked child, where the threads do not exist and cannot be joined.
  std::unique_ptr<std::vector<std::thread>> workers_;
};

}  // namespace octavo
