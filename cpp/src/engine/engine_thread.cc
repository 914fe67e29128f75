#include "octavo/engine_thread.h"

#include <chrono>
#include <utility>

#include "engine/engine_thread_impl.h"

namespace octavo {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

EngineThread::EngineThread(std::shared_ptr<Engine> engine) {
  if (engine == nullptr) throw InvalidArgument("engine: none given; expected an engine");
  impl_ = std::make_shared<Impl>(std::move(engine));
  Impl::start(impl_);
}

EngineThread::~EngineThread() {
  if (getpid() != impl_->owner) {
    // The thread, its locks and its share of the engine are as the fork found them.
    impl_->leaked = impl_;
  } else if (impl_->on_thread()) {
    impl_->close_from_thread();
  } else {
    impl_->close();
  }
}

RequestId EngineThread::add_request(std::span<const int32_t> prompt_token_ids,
                                    const SamplingParams& params,
                                    std::shared_ptr<OutputQueue> outputs,
                                    std::string_view cache_salt, Delivery delivery) {
  const double queued = now();
  impl_->open_engine()->validate(prompt_token_ids, params);
  auto submission = std::make_unique<Submission>(
      Submission{.prompt_token_ids = {prompt_token_ids.begin(), prompt_token_ids.end()},
                 .params = params,
                 .cache_salt = std::string(cache_salt),
                 .delivery = delivery});
  impl_->mark_processors(submission->params);
  return impl_->submit(std::move(submission), std::move(outputs), queued);
}

RequestId EngineThread::add_beam_search(std::span<const int32_t> prompt_token_ids,
                                        const BeamSearchParams& params,
                                        std::shared_ptr<OutputQueue> outputs,
                                        std::string_view cache_salt) {
  const double queued = now();
  impl_->open_engine()->validate(prompt_token_ids, params);
  auto submission = std::make_unique<Submission>(
      Submission{.prompt_token_ids = {prompt_token_ids.begin(), prompt_token_ids.end()},
                 .beams = params,
                 .cache_salt = std::string(cache_salt)});
  impl_->mark_processors(submission->beams->tokens);
  return impl_->submit(std::move(submission), std::move(outputs), queued);
}

void EngineThread::abort(RequestId id) {
  RequestTable::Node removed;  // destroyed after the lock
  const auto lock = impl_->lock();
  removed = impl_->requests.remove(id);
  if (removed && removed.mapped().delivery == Delivery::kWhole) {
    RequestTable::Outputs outputs;
    RequestTable::end(removed, FinishReason::kAbort, "", outputs);
    impl_->put(std::move(outputs));
  }
  if (!removed || !removed.mapped().engine_id) return;  // the thread sees that it is gone
  impl_->aborts.push_back({.id = id, .engine_id = *removed.mapped().engine_id});
  impl_->wake.notify_one();
}

void EngineThread::abort_sample(RequestId id, int32_t sample_index) {
  RequestTable::Node removed;  // destroyed after the lock
  const auto lock = impl_->lock();
  AcceptedRequest* request = impl_->requests.end_sample(id, sample_index);
  if (request == nullptr) return;
  const bool last = request->num_unended == 0;
  if (request->delivery == Delivery::kWhole) {
    impl_->put(RequestTable::end_of_sample(*request, id, sample_index));
  }
  if (request->engine_id) {
    impl_->aborts.push_back({.id = id,
                             .engine_id = *request->engine_id,
                             .sample_index = sample_index,
                             .last_sample = last});
    impl_->wake.notify_one();
  }
  if (last) removed = impl_->requests.remove(id);
}

void EngineThread::run_between_steps(const std::function<void(Engine&)>& function) {
  const std::shared_ptr<Impl> impl = impl_;  // the EngineThread may go while this waits
  if (impl->on_thread()) {
    throw Error("run_between_steps: called on a thread of the engine; expected another thread");
  }
  Impl::Call call{.function = &function};
  auto lock = impl->lock();
  impl->calls.push_back(&call);
  impl->wake.notify_one();
  impl->called.wait(lock, [&call] { return call.done; });
  lock.unlock();
  if (call.error) std::rethrow_exception(call.error);
}

void EngineThread::pause() {
  const auto lock = impl_->lock();
  impl_->paused = true;
}

void EngineThread::resume() {
  const auto lock = impl_->lock();
  impl_->paused = false;
  impl_->wake.notify_one();
}

bool EngineThread::paused() const {
  const auto lock = impl_->lock();
  return impl_->paused;
}

int64_t EngineThread::num_unfinished() const {
  const auto lock = impl_->lock();
  return impl_->requests.size();
}

EngineStats EngineThread::stats() const {
  const auto lock = impl_->lock();
  return impl_->stats;
}

void EngineThread::close() {
  if (impl_->on_thread()) {
    throw Error("close: called on a thread of the engine; expected another thread");
  }
  if (getpid() == impl_->owner) impl_->close();  // a forked child has no thread to end
}

}  // namespace octavo
