// What must hold between any two steps, whatever happened before. For tests and debug builds, which
// check it after every step. O(blocks + tokens of sequences); step thread.
#pragma once

#include "cache/block_manager.h"
#include "sched/scheduler.h"

namespace octavo {

// Throws InternalError that says which invariant is broken. All block tables must belong to
// sequences of the scheduler.
void check_invariants(const Scheduler& scheduler, const BlockManager& blocks);

}  // namespace octavo
