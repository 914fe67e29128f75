#include "engine/output_queue.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <system_error>
#include <utility>

#include "base/check.h"

namespace octavo {

void OutputQueue::Impl::check_process() const {
  if (getpid() != owner) {
    throw Error(
        "output queue: used in a process forked after its creation; expected the child to create "
        "one of its own");
  }
}

void OutputQueue::Impl::put(std::vector<RequestOutput> outputs) {
  if (outputs.empty()) return;
  {
    const std::lock_guard lock(mutex);
    if (waiting.empty()) {
      waiting = std::move(outputs);
      signal();
    } else {
      std::ranges::move(outputs, std::back_inserter(waiting));
    }
  }
  filled.notify_one();
}

// The counter of an eventfd holds 2^64 - 2; with one for each filling it never blocks.
void OutputQueue::Impl::signal() const {
  if (event_fd >= 0) static_cast<void>(eventfd_write(event_fd, 1));
}

OutputQueue::OutputQueue() : impl_(std::make_unique<Impl>()) {}

OutputQueue::~OutputQueue() {
  if (impl_->event_fd >= 0) ::close(impl_->event_fd);
  // In a forked child the mutex may be locked, and waited for, by threads that are not there.
  if (getpid() != impl_->owner) static_cast<void>(impl_.release());
}

std::vector<RequestOutput> OutputQueue::take(std::chrono::milliseconds timeout) {
  impl_->check_process();
  // So that the deadline does not overflow.
  const auto wait = std::min<std::chrono::milliseconds>(timeout, std::chrono::hours(24 * 365));
  std::unique_lock lock(impl_->mutex);
  if (!impl_->filled.wait_for(lock, wait, [this] { return !impl_->waiting.empty(); })) return {};
  if (eventfd_t count; impl_->event_fd >= 0) {
    static_cast<void>(eventfd_read(impl_->event_fd, &count));
  }
  return std::exchange(impl_->waiting, {});
}

int OutputQueue::fd() const {
  impl_->check_process();
  const std::lock_guard lock(impl_->mutex);
  if (impl_->event_fd < 0) {
    impl_->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (impl_->event_fd < 0) {
      throw Error(str_cat("output queue: no eventfd (", std::generic_category().message(errno),
                          "); expected a free file descriptor"));
    }
    if (!impl_->waiting.empty()) impl_->signal();
  }
  return impl_->event_fd;
}

}  // namespace octavo
