// Which memory a sleeping engine has given back. Owned by the engine, under its lock.
#pragma once

#include <cstdint>

#include "octavo/error.h"

namespace octavo {

struct SleepState {
  bool weights = false;  // and the workspace
  bool kv_cache = false;

  int32_t level() const { return weights ? 2 : kv_cache ? 1 : 0; }  // 0: awake
  void check_awake() const {
    if (level() != 0) throw Error("engine: asleep; expected wake_up() first");
  }
};

}  // namespace octavo
