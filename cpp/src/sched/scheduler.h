// Decides what each step computes: running sequences first, then waiting ones, first come, first
// served, within a token budget; takes blocks from the last one when memory is short. Knows ids and
// counts, no tensors. Owned by the engine, as are the sequences; step thread.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/block_manager.h"
#include "sched/sequence_list.h"
#include "sched/step_plan.h"

namespace octavo {

struct SchedulerConfig {
  int32_t max_num_seqs = 256;             // sequences in one step
  int32_t max_num_batched_tokens = 4096;  // tokens in one step
  bool enable_chunked_prefill = true;     // false: max_num_batched_tokens holds any sequence
};

class Scheduler {
 public:
  Scheduler(SchedulerConfig config, BlockManager& blocks);

  // Puts a new sequence at the end of the waiting queue. The caller has refused what could never
  // fit: the blocks of the longest that it may become are at most all blocks.
  void add(Sequence* sequence);

  // A new sequence whose tokens are the parent's, a beginning of them, or go on behind them. Of a
  // running parent it shares the computed blocks and runs directly behind it; unless it goes on,
  // its last token is computed again. Behind a waiting parent it waits, with nothing. It takes over
  // the parent's salt. Between steps only.
  void fork(const Sequence& parent, Sequence* child);

  // Takes a sequence out, at any time, and frees its blocks. With a step in flight, call it only
  // after the plan has run. No effect on a sequence that is finished.
  void remove(Sequence* sequence);

  // Every running sequence loses its blocks and waits again, in order, before those that wait
  // already. Between steps only.
  void preempt_all();

  // The next step; empty only when there are no sequences but parked ones. All others have tokens
  // to compute.
  // A plan that is not empty is in flight until complete().
  StepPlan schedule();

  // The plan has run: its tokens are computed. When it failed, remove its sequences before this,
  // and reset the prefix cache, which knows what they were to compute.
  void complete(const StepPlan& plan);

  bool step_in_flight() const { return step_in_flight_; }
  int64_t num_running() const { return running_.size(); }
  int64_t num_waiting() const { return waiting_.size(); }
  int64_t num_preemptions() const { return num_preemptions_; }
  // Tokens computed again because of preemption, less what the prefix cache had kept of them.
  int64_t num_recomputed_tokens() const { return num_recomputed_tokens_; }

  const SequenceList& running() const { return running_; }
  const SequenceList& waiting() const { return waiting_; }

 private:
  bool schedule_running(StepPlan& plan);
  void schedule_waiting(StepPlan& plan);
  void displace_parked(StepPlan& plan);
  bool admit(Sequence* sequence, const StepPlan& plan);
  void preempt(Sequence* sequence);
  void take(Sequence* sequence, StepPlan& plan);
  bool has_room(const StepPlan& plan) const;

  const SchedulerConfig config_;
  BlockManager& blocks_;
  SequenceList running_;  // may be longer than max_num_seqs, by forks
  SequenceList waiting_;
  std::vector<Sequence*> scheduled_;  // of the step in flight; null where removed
  bool step_in_flight_ = false;
  int64_t num_preemptions_ = 0;
  int64_t num_recomputed_tokens_ = 0;
};

}  // namespace octavo
