// The state of an OutputQueue. Owned by it; the engine's thread puts outputs in, any thread takes
// them.
#pragma once

#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <vector>

#include "octavo/engine_thread.h"

namespace octavo {

struct OutputQueue::Impl {
  void check_process() const;
  // One wake-up for all of `outputs`.
  void put(std::vector<RequestOutput> outputs);
  void signal() const;

  const pid_t owner = getpid();
  mutable std::mutex mutex;
  std::condition_variable filled;
  std::vector<RequestOutput> waiting;
  mutable int event_fd = -1;  // made by the first call of fd(); readable while outputs wait
};

}  // namespace octavo
