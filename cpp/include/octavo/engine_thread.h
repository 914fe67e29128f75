// A thread that steps an engine for as long as there is work, and gives each request's outputs to
// the queue that its caller named. Nothing here waits for a step, but run_between_steps and the
// end: requests and aborts are left in an inbox that the thread empties between steps. Every method
// may be called from any thread; in a process forked after the construction each throws Error.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "octavo/engine.h"
#include "octavo/export.h"

namespace octavo {

// The outputs of one or more requests, in the order in which they were produced. Owned by its
// caller and by the requests in flight.
class OCTAVO_EXPORT OutputQueue {
 public:
  OutputQueue();
  ~OutputQueue();
  OutputQueue(const OutputQueue&) = delete;
  OutputQueue& operator=(const OutputQueue&) = delete;

  // All that has come: at once where there is something, else when it comes, or nothing after
  // `timeout`.
  std::vector<RequestOutput> take(std::chrono::milliseconds timeout);

  // A descriptor for an event loop (eventfd): readable while outputs wait; take() clears it. Owned
  // by the queue. Throws Error when the system gives none.
  int fd() const;

 private:
  friend class EngineThread;
  struct OCTAVO_HIDDEN Impl;
  std::unique_ptr<Impl> impl_;
};

// When a sample's outputs go to the queue: with each step, or as one when the sample ends. A caller
// who waits for whole results is not woken by every token.
enum class Delivery : uint8_t { kEachStep, kWhole };

class OCTAVO_EXPORT EngineThread {
 public:
  // Starts the thread. From now on nobody else may call step() of the engine, and its sleep() and
  // wake_up() are called through run_between_steps.
  explicit EngineThread(std::shared_ptr<Engine> engine);
  ~EngineThread();  // as close()
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  // As Engine::add_request, on the calling thread for what it throws; returns an id, never used
  // before, that the outputs carry. They may be in the queue before this returns. Throws Error when
  // a step has failed for good.
  RequestId add_request(std::span<const int32_t> prompt_token_ids, const SamplingParams& params,
                        std::shared_ptr<OutputQueue> outputs, std::string_view cache_salt = {},
                        Delivery delivery = Delivery::kEachStep);

  RequestId add_beam_search(std::span<const int32_t> prompt_token_ids,
                            const BeamSearchParams& params, std::shared_ptr<OutputQueue> outputs,
                            std::string_view cache_salt = {});

  // The request's outputs stop now, also those of a step in progress; its blocks are free when
  // that step has ended. With Delivery::kWhole a last output of each sample, with
  // FinishReason::kAbort, has what there is. No effect on a request that is not in flight.
  void abort(RequestId id);
  void abort_sample(RequestId id, int32_t sample_index);

  // Runs `function` on the thread between two steps and returns when it has run; rethrows what it
  // throws. Throws Error, and the function never runs, when the thread ends first, and when called
  // by such a function or by a logits processor.
  void run_between_steps(const std::function<void(Engine&)>& function);

  // Between pause() and resume() no step begins; requests are accepted and wait.
  void pause();
  void resume();
  bool paused() const;

  int64_t num_unfinished() const;  // requests that are in the inbox or in the engine
  EngineStats stats() const;       // as of the last step's end; never waits

  // Ends the thread and lets go of the engine: waits for the step in progress, aborts what is in
  // flight, whose last output has FinishReason::kAbort and says why. Every later call but close()
  // throws Error. Throws Error when called by a function or a logits processor; the destructor
  // lets the thread end by itself there.
  void close();

 private:
  struct OCTAVO_HIDDEN Impl;
  std::shared_ptr<Impl> impl_;  // the thread has a share
};

}  // namespace octavo
