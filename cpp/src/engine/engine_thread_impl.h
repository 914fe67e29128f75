// The state of an EngineThread and the loop of its thread. Shared by the EngineThread, its callers
// while they are within a call, and the thread. What is not said to be the thread's own is guarded
// by the mutex; nothing of the caller's (functions, destructors of what a request holds) and no
// call of the engine runs under it.
#pragma once

#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/request_table.h"
#include "octavo/engine_thread.h"

namespace octavo {

struct EngineThread::Impl {
  // A function that a caller waits for.
  struct Call {
    const std::function<void(Engine&)>* function;
    bool done = false;
    std::exception_ptr error;
  };

  // Of a request that the engine has.
  struct Abort {
    RequestId id;
    RequestId engine_id;
    std::optional<int32_t> sample_index;  // none: the whole request
    bool last_sample = false;             // the caller has no other of the request left
  };

  explicit Impl(std::shared_ptr<Engine> shared_engine);

  // For callers.
  static void start(const std::shared_ptr<Impl>& impl);
  void check_process() const;
  std::unique_lock<std::mutex> lock() const;  // throws Error in a forked child and after close()
  std::shared_ptr<Engine> open_engine() const;
  RequestId submit(std::unique_ptr<Submission> submission, std::shared_ptr<OutputQueue> outputs,
                   double queued);
  static void put(RequestTable::Outputs outputs);  // under the mutex: after abort() there is none
  bool on_thread() const;  // also in a logits processor, which another thread of the engine may run
  void mark_processors(SamplingParams& params) const;
  void close();
  void close_from_thread();

  // The thread.
  void run() noexcept;
  bool wait();
  void handle_inbox();
  bool take_submission(RequestId& id, std::unique_ptr<Submission>& submission);
  void add(RequestId id, const Submission& submission);
  void begin(RequestId id, RequestId engine_id);
  void refuse(RequestId id, const std::string& error);
  void abort(const Abort& abort);
  void retry_late_aborts();
  void handle_call();
  bool may_step();
  void step();
  void refresh();
  void fail() noexcept;
  std::vector<RequestId> end_all(FinishReason reason, const std::string& error);
  void finish() noexcept;

  const pid_t owner = getpid();
  mutable std::mutex mutex;
  std::condition_variable wake;    // the thread waits
  std::condition_variable called;  // callers of run_between_steps wait
  std::shared_ptr<Engine> engine;  // until the thread has ended
  RequestTable requests;
  // The inbox.
  std::deque<RequestId> added;  // also those that were aborted since
  std::vector<Abort> aborts;
  std::deque<Call*> calls;
  EngineStats stats;
  bool failed = false;    // a step threw: the engine is broken
  std::string failure;    // what it threw
  bool has_work = false;  // the engine is awake and has requests
  bool paused = false;
  bool closing = false;

  // The thread's own: samples 0 that the engine cannot end yet, because they compute the prompt for
  // the others.
  std::vector<Abort> late_aborts;

  std::shared_ptr<Impl> leaked;  // itself, in a forked child
  std::mutex join_mutex;
  std::thread thread;
};

}  // namespace octavo
