#include "grammar/mask_filler.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "base/check.h"

namespace octavo {

// The jobs of one start() are a generation. A thread that claims a job does so under the lock (a
// claim is far cheaper than a mask), so that none can take a job of a generation that is over.
struct MaskFiller::Impl {
  explicit Impl(int32_t count) : num_threads(std::max(count, 0)) {}

  Job* claim();  // under the lock; null: nothing is left
  void run_claimed(std::unique_lock<std::mutex>& lock);
  void work();

  const int32_t num_threads;
  std::mutex mutex;
  std::condition_variable has_jobs, all_done;
  std::span<Job> jobs;
  size_t next = 0;      // of jobs, the first that nobody has begun
  size_t num_done = 0;  // of jobs
  bool stopping = false;
  std::vector<std::thread> threads;
};

MaskFiller::Job* MaskFiller::Impl::claim() { return next < jobs.size() ? &jobs[next++] : nullptr; }

void MaskFiller::Impl::run_claimed(std::unique_lock<std::mutex>& lock) {
  while (Job* job = claim()) {
    lock.unlock();
    try {
      job->error.clear();
      job->matcher->fill_mask(job->mask);
    } catch (const std::exception& e) {
      job->error = e.what();
    } catch (...) {
      job->error = "structured_outputs: an unknown error";
    }
    if (!job->error.empty()) std::fill(job->mask.begin(), job->mask.end(), 0u);
    lock.lock();
    if (++num_done == jobs.size()) all_done.notify_all();
  }
}

void MaskFiller::Impl::work() {
  std::unique_lock lock(mutex);
  for (;;) {
    has_jobs.wait(lock, [&] { return stopping || next < jobs.size(); });
    if (stopping) return;
    run_claimed(lock);
  }
}

MaskFiller::MaskFiller(int32_t num_threads) : impl_(std::make_unique<Impl>(num_threads)) {}

MaskFiller::~MaskFiller() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->has_jobs.notify_all();
  for (std::thread& thread : impl_->threads) thread.join();
}

void MaskFiller::start(std::span<Job> jobs) {
  std::lock_guard lock(impl_->mutex);
  OCTAVO_CHECK(impl_->num_done == impl_->jobs.size(), "MaskFiller::start: wait() was not called");
  impl_->jobs = jobs;
  impl_->next = impl_->num_done = 0;
  if (jobs.empty()) return;
  try {
    while (static_cast<int32_t>(impl_->threads.size()) < impl_->num_threads) {
      impl_->threads.emplace_back([impl = impl_.get()] { impl->work(); });
    }
  } catch (const std::system_error&) {
    // Fewer threads, or none: wait() does what they leave.
  }
  impl_->has_jobs.notify_all();
}

void MaskFiller::wait() {
  std::unique_lock lock(impl_->mutex);
  impl_->run_claimed(lock);
  impl_->all_done.wait(lock, [&] { return impl_->num_done == impl_->jobs.size(); });
  impl_->jobs = {};
  impl_->next = impl_->num_done = 0;
}

}  // namespace octavo
