#include "sched/invariants.h"

#include <unordered_set>
#include <vector>

#include "base/check.h"

namespace octavo {
namespace {

struct Census {
  std::unordered_set<const Sequence*> sequences;
  std::unordered_set<int64_t> ids;
  std::vector<int32_t> owners;  // [num_blocks]
};

void check_queue(const SequenceList& queue, SequenceState state, Census& census) {
  int64_t size = 0;
  const Sequence* last = nullptr;
  for (const Sequence* s = queue.front(); s; s = SequenceList::next(s)) {
    OCTAVO_CHECK(census.sequences.insert(s).second && census.ids.insert(s->id).second,
                 "invariants: sequence ", s->id, " is queued twice");
    OCTAVO_CHECK(s->state == state, "invariants: sequence ", s->id, " is in the wrong queue");
    ++size;
    last = s;
  }
  OCTAVO_CHECK(size == queue.size() && last == queue.back(), "invariants: a queue of ",
               queue.size(), " sequences has ", size);
}

void check_running(const Sequence& s, const BlockManager& blocks, Census& census) {
  const int32_t num_blocks = s.blocks.size();
  OCTAVO_CHECK(s.num_computed >= 0 && s.num_scheduled >= 0 &&
                   s.num_computed + s.num_scheduled <= s.num_tokens() && s.num_cached_tokens >= 0,
               "invariants: sequence ", s.id, " has ", s.num_computed, " computed and ",
               s.num_scheduled, " scheduled of ", s.num_tokens(), " tokens");
  OCTAVO_CHECK(blocks.blocks_for(s.num_computed + s.num_scheduled) <= num_blocks &&
                   num_blocks <= blocks.blocks_for(s.num_tokens()),
               "invariants: sequence ", s.id, " has ", num_blocks, " blocks for ", s.num_computed,
               " computed and ", s.num_scheduled, " scheduled of ", s.num_tokens(), " tokens");
  OCTAVO_CHECK(s.blocks.num_published() <= (s.num_computed + s.num_scheduled) / blocks.block_size(),
               "invariants: sequence ", s.id,
               " has published what it neither computed nor computes");
  std::unordered_set<int32_t> own;
  for (const int32_t block : s.blocks.ids()) {
    OCTAVO_CHECK(own.insert(block).second, "invariants: sequence ", s.id, " has block ", block,
                 " twice");
    ++census.owners.at(block);
  }
}

void check_waiting(const Sequence& s) {
  OCTAVO_CHECK(s.blocks.empty() && s.num_computed == 0 && s.num_scheduled == 0,
               "invariants: sequence ", s.id, " waits but has ", s.blocks.size(), " blocks, ",
               s.num_computed, " computed and ", s.num_scheduled, " scheduled tokens");
}

void check_pool(const BlockPool& pool, const Census& census) {
  int32_t used = 0;
  for (int32_t block = 0; block < pool.num_blocks(); ++block) {
    OCTAVO_CHECK(pool.ref_count(block) == census.owners[block], "invariants: block ", block,
                 " has ", pool.ref_count(block), " references and ", census.owners[block],
                 " owners");
    used += pool.ref_count(block) > 0;
  }
  std::unordered_set<int32_t> free;
  for (const int32_t block : pool.free_blocks()) {
    OCTAVO_CHECK(free.insert(block).second && pool.ref_count(block) == 0, "invariants: block ",
                 block, " is free twice or in use");
  }
  OCTAVO_CHECK(static_cast<int32_t>(free.size()) == pool.num_free() &&
                   pool.num_free() + used == pool.num_blocks(),
               "invariants: ", free.size(), " free and ", used, " used of ", pool.num_blocks(),
               " blocks");
}

}  // namespace

void check_invariants(const Scheduler& scheduler, const BlockManager& blocks) {
  Census census;
  census.owners.resize(blocks.num_blocks());
  check_queue(scheduler.running(), SequenceState::kRunning, census);
  check_queue(scheduler.waiting(), SequenceState::kWaiting, census);
  for (const Sequence* s = scheduler.running().front(); s; s = SequenceList::next(s)) {
    check_running(*s, blocks, census);
  }
  for (const Sequence* s = scheduler.waiting().front(); s; s = SequenceList::next(s)) {
    check_waiting(*s);
  }
  check_pool(blocks.pool(), census);
  blocks.prefix_cache().check();
}

}  // namespace octavo
