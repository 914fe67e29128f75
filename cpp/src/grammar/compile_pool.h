// Threads that make grammars, each within a time. A thread whose time is over is left behind: its
// job fails, and another thread takes its place, while there are few of them. Owned by
// GrammarCompiler; every method may be called from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "grammar/grammar_compiler.h"

namespace octavo {

class CompilePool {
 public:
  using Make = std::function<std::unique_ptr<Grammar>()>;  // throws; what() is the job's error
  // `begun`: false for a job that failed because no thread was free.
  using OnDone = std::function<void(const GrammarJob&, bool begun)>;

  // Threads that may be left behind before none takes their place. As long as no thread is free for
  // that reason, jobs fail at once.
  static constexpr int32_t kSpareThreads = 4;

  // `on_done` is called from the pool's threads, and not after the destructor.
  CompilePool(int32_t num_threads, OnDone on_done);
  // Drops what waits, waits for what runs until its time is over, and then leaves it behind.
  ~CompilePool();

  // `limit` is the time from the begin of `make`; what waits for a thread has all the time. `taken`
  // becomes false for a job that failed at once because no thread was free; on_done is not called
  // for it.
  std::shared_ptr<GrammarJob> submit(Make make, std::chrono::milliseconds limit,
                                     bool* taken = nullptr);
  int32_t num_left_behind() const;

 private:
  struct Core;
  std::shared_ptr<Core> core_;  // shared with the threads left behind
};

}  // namespace octavo
