// Engine::sleep and Engine::wake_up.
#if defined(__linux__)
#include <malloc.h>
#endif

#include <new>

#include "base/check.h"
#include "engine/engine_impl.h"
#include "octavo/engine.h"

namespace octavo {
namespace {

// Small tensors, and what loading needs, lie in the heap, which keeps what is freed.
struct HeapTrimmer {
  ~HeapTrimmer() {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
  }
};

}  // namespace

void Engine::sleep(int32_t level) {
  if (level != 1 && level != 2) {
    throw InvalidArgument(
        str_cat("sleep: level ", level, "; expected 1 (the KV cache) or 2 (the weights too)"));
  }
  const auto lock = impl_->lock();
  const HeapTrimmer trimmer;
  SleepState& asleep = impl_->asleep;
  if (!asleep.kv_cache) {
    impl_->scheduler.preempt_all();
    impl_->blocks.reset_prefix_cache();
    impl_->loaded.runner->release_kv();
    asleep.kv_cache = true;
  }
  if (level == 2 && !asleep.weights) {
    impl_->loaded.runner->release_model();
    asleep.weights = true;
  }
}

void Engine::wake_up(bool weights, bool kv_cache) {
  const auto lock = impl_->lock();
  const HeapTrimmer trimmer;
  SleepState& asleep = impl_->asleep;
  try {
    // The weights first: while they are read they need the most memory.
    if (weights && asleep.weights) {
      reload_model(impl_->config, impl_->loaded);
      asleep.weights = false;
    }
    if (kv_cache && asleep.kv_cache) {
      allocate_kv(impl_->loaded);
      asleep.kv_cache = false;
    }
  } catch (const std::bad_alloc&) {
    throw OutOfMemory("wake_up: the system has no more memory; expected as much as before");
  }
}

int32_t Engine::sleep_level() const {
  const auto lock = impl_->lock();
  return impl_->asleep.level();
}

}  // namespace octavo
