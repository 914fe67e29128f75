#include "engine/engine_thread_impl.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <span>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "engine/output_queue.h"

namespace octavo {
namespace {

// The state whose thread this is, or for whose step this thread runs a logits processor.
thread_local const void* current = nullptr;

class MarkedProcessor : public LogitsProcessor {
 public:
  MarkedProcessor(std::shared_ptr<LogitsProcessor> processor, const void* state)
      : processor_(std::move(processor)), state_(state) {}

  void process(std::span<const int32_t> output_token_ids, std::span<float> logits) override {
    const struct Restored {
      const void* outer = current;
      ~Restored() { current = outer; }
    } restored;
    current = state_;
    processor_->process(output_token_ids, logits);
  }

 private:
  const std::shared_ptr<LogitsProcessor> processor_;
  const void* const state_;
};

// Requests that the engine is given between two steps: more than a step can begin, and so few that
// the next step comes however fast they are submitted.
constexpr size_t kMaxAdded = 512;

constexpr const char* kClosed = "engine: it is closed; expected an open one";
constexpr const char* kClosedInFlight =
    "engine: it was closed while the request was in flight; expected it to stay open";

std::string current_error() {
  try {
    throw;
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "engine: a step threw what is no std::exception";
  }
}

}  // namespace

EngineThread::Impl::Impl(std::shared_ptr<Engine> shared_engine)
    : engine(std::move(shared_engine)) {}

void EngineThread::Impl::start(const std::shared_ptr<Impl>& impl) {
  // The thread inherits the mask: signals are for the application's threads.
  sigset_t all, saved;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &saved);
  std::string error;
  try {
    impl->thread = std::thread([impl] { impl->run(); });
  } catch (const std::system_error& failed) {
    error = failed.what();
  }
  pthread_sigmask(SIG_SETMASK, &saved, nullptr);
  if (!error.empty()) {
    throw Error(
        str_cat("engine: its thread could not be started (", error, "); expected fewer threads"));
  }
}

// A forked child has neither the thread nor a consistent mutex: refuse before touching either.
void EngineThread::Impl::check_process() const {
  if (getpid() != owner) {
    throw Error(
        "engine: used in a process forked after its creation; expected the child to create "
        "an engine of its own");
  }
}

std::unique_lock<std::mutex> EngineThread::Impl::lock() const {
  check_process();
  std::unique_lock held(mutex);
  if (closing) throw Error(kClosed);
  return held;
}

std::shared_ptr<Engine> EngineThread::Impl::open_engine() const {
  const auto held = lock();
  return engine;
}

RequestId EngineThread::Impl::submit(std::unique_ptr<Submission> submission,
                                     std::shared_ptr<OutputQueue> outputs, double queued) {
  if (outputs == nullptr) throw InvalidArgument("outputs: none given; expected a queue");
  const auto held = lock();
  if (failed) throw Error(failure);
  added.push_back(requests.next_id());
  wake.notify_one();
  return requests.add(std::move(submission), std::move(outputs), queued);
}

void EngineThread::Impl::put(RequestTable::Outputs outputs) {
  for (auto& [queue, list] : outputs) queue->impl_->put(std::move(list));
}

bool EngineThread::Impl::on_thread() const { return current == this; }

void EngineThread::Impl::mark_processors(SamplingParams& params) const {
  for (auto& processor : params.logits_processors) {
    processor = std::make_shared<MarkedProcessor>(std::move(processor), this);
  }
}

void EngineThread::Impl::close() {
  {
    const std::lock_guard held(mutex);
    closing = true;
    wake.notify_one();
  }
  {
    const std::lock_guard joining(join_mutex);
    if (thread.joinable()) thread.join();
  }
  std::shared_ptr<Engine> dropped;  // destroyed after the lock
  const std::lock_guard held(mutex);
  dropped = std::move(engine);
}

// A function or a logits processor has dropped the EngineThread: the thread goes on until it is
// back in its loop, and the last share of this goes with it.
void EngineThread::Impl::close_from_thread() {
  const std::lock_guard held(mutex);
  closing = true;
  thread.detach();
}

void EngineThread::Impl::run() noexcept {
  current = this;
  pthread_setname_np(pthread_self(), "octavo-engine");
  bool open = true;
  while (open) {
    try {
      refresh();
      while ((open = wait())) {
        handle_inbox();
        if (may_step()) step();
      }
    } catch (...) {
      fail();
    }
  }
  finish();
}

// False: the end.
bool EngineThread::Impl::wait() {
  std::unique_lock held(mutex);
  wake.wait(held, [this] {
    return closing || !added.empty() || !aborts.empty() || !calls.empty() || (has_work && !paused);
  });
  return !closing;
}

// What comes meanwhile waits for the next time, so that a step always follows.
void EngineThread::Impl::handle_inbox() {
  size_t num_added = 0, num_calls = 0;
  std::vector<Abort> taken;
  {
    const std::lock_guard held(mutex);
    num_added = std::min(added.size(), kMaxAdded);
    taken.swap(aborts);
    num_calls = calls.size();
  }
  if (num_added == 0 && taken.empty() && num_calls == 0) return;
  for (; num_added > 0; --num_added) {
    RequestId id = 0;
    std::unique_ptr<Submission> submission;
    if (take_submission(id, submission)) add(id, *submission);
  }
  for (const Abort& request : taken) {
    if (!failed) abort(request);  // only this thread writes it
  }
  for (; num_calls > 0; --num_calls) handle_call();
  refresh();
}

// False where the request was aborted in the inbox.
bool EngineThread::Impl::take_submission(RequestId& id, std::unique_ptr<Submission>& submission) {
  const std::lock_guard held(mutex);
  id = added.front();
  added.pop_front();
  submission = requests.take_submission(id);
  return submission != nullptr;
}

void EngineThread::Impl::add(RequestId id, const Submission& submission) {
  RequestId engine_id = 0;
  try {
    engine_id = submission.beams ? engine->add_beam_search(submission.prompt_token_ids,
                                                           *submission.beams, submission.cache_salt)
                                 : engine->add_request(submission.prompt_token_ids,
                                                       submission.params, submission.cache_salt);
  } catch (const std::exception& error) {
    return refuse(id, error.what());
  }
  begin(id, engine_id);
}

void EngineThread::Impl::begin(RequestId id, RequestId engine_id) {
  std::optional<std::vector<int32_t>> aborted;
  {
    const std::lock_guard held(mutex);
    aborted = requests.begin(id, engine_id);
  }
  if (!aborted) {
    static_cast<void>(engine->abort(engine_id));
    return;
  }
  for (int32_t index : *aborted) abort({.id = id, .engine_id = engine_id, .sample_index = index});
}

// The state of the engine may have changed since the request was validated.
void EngineThread::Impl::refuse(RequestId id, const std::string& error) {
  RequestTable::Node removed;  // destroyed after the lock
  RequestTable::Outputs outputs;
  const std::lock_guard held(mutex);
  removed = requests.remove(id);
  if (removed) RequestTable::end(removed, FinishReason::kError, error, outputs);
  put(std::move(outputs));
}

void EngineThread::Impl::abort(const Abort& request) {
  const bool ended =
      request.sample_index && engine->abort_sample(request.engine_id, *request.sample_index);
  if (!request.sample_index || request.last_sample) {
    static_cast<void>(engine->abort(request.engine_id));  // also where sample 0 had to go on
  } else if (!ended && request.sample_index == 0) {
    late_aborts.push_back(request);
  }
}

void EngineThread::Impl::retry_late_aborts() {
  std::erase_if(late_aborts, [this](const Abort& late) {
    {
      const std::lock_guard held(mutex);
      if (!requests.contains(late.id)) return true;
    }
    return engine->abort_sample(late.engine_id, 0);
  });
}

void EngineThread::Impl::handle_call() {
  Call* call = nullptr;
  {
    const std::lock_guard held(mutex);
    call = calls.front();
    calls.pop_front();
  }
  std::exception_ptr error;
  try {
    (*call->function)(*engine);
    refresh();  // so that stats() has what it did
  } catch (...) {
    error = std::current_exception();
  }
  const std::lock_guard held(mutex);
  call->error = std::move(error);  // no share is left here: the caller destroys it
  call->done = true;
  called.notify_all();
}

bool EngineThread::Impl::may_step() {
  const std::lock_guard held(mutex);
  return has_work && !paused && !closing;
}

void EngineThread::Impl::step() {
  std::vector<RequestOutput> outputs;
  try {
    outputs = engine->step();
  } catch (const Error&) {
    if (engine->sleep_level() == 0) throw;  // else it was put to sleep past this thread
  }
  {
    std::vector<RequestTable::Node> ended;  // destroyed after the lock
    // The outputs are put under the lock: after abort() there is none.
    const std::lock_guard held(mutex);
    put(requests.route(std::move(outputs), ended));
  }
  retry_late_aborts();
  refresh();
}

void EngineThread::Impl::refresh() {
  if (failed) return;
  const bool work = engine->sleep_level() == 0 && engine->has_unfinished_requests();
  const EngineStats now = engine->stats();
  const std::lock_guard held(mutex);
  has_work = work;
  stats = now;
}

// In an exception's handler: the engine is broken.
void EngineThread::Impl::fail() noexcept {
  try {
    {
      const std::lock_guard held(mutex);
      failed = true;
      has_work = false;
      failure = current_error();
    }
    end_all(FinishReason::kError, failure);
  } catch (...) {
    const std::lock_guard held(mutex);
    failure = "out of memory";  // short: it needs none
  }
}

std::vector<RequestId> EngineThread::Impl::end_all(FinishReason reason, const std::string& error) {
  std::vector<RequestTable::Node> removed;  // destroyed after the lock
  RequestTable::Outputs outputs;
  std::vector<RequestId> engine_ids;
  const std::lock_guard held(mutex);
  removed = requests.remove_all();
  for (RequestTable::Node& node : removed) {
    RequestTable::end(node, reason, error, outputs);
    if (node.mapped().engine_id) engine_ids.push_back(*node.mapped().engine_id);
  }
  put(std::move(outputs));
  return engine_ids;
}

// The inbox is closed.
void EngineThread::Impl::finish() noexcept {
  try {
    if (!failed) {
      for (RequestId id : end_all(FinishReason::kAbort, kClosedInFlight)) engine->abort(id);
      for (const Abort& request : aborts) engine->abort(request.engine_id);
    }
  } catch (...) {
    failed = true;  // and callers are let go in any case
  }
  const std::lock_guard held(mutex);
  for (Call* call : calls) {
    call->error = std::make_exception_ptr(Error(kClosed));
    call->done = true;
  }
  calls.clear();
  called.notify_all();
}

}  // namespace octavo
