#include "sched/scheduler.h"

#include <algorithm>

#include "base/check.h"
#ifndef NDEBUG
#include "sched/invariants.h"
#endif

namespace octavo {
namespace {

bool have_common_beginning(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  const auto length = static_cast<std::ptrdiff_t>(std::min(a.size(), b.size()));
  return std::equal(a.begin(), a.begin() + length, b.begin());
}

bool all_parked(const SequenceList& queue) {
  for (const Sequence* s = queue.front(); s; s = SequenceList::next(s)) {
    if (!s->parked) return false;
  }
  return true;
}

}  // namespace

Scheduler::Scheduler(SchedulerConfig config, BlockManager& blocks)
    : config_(config), blocks_(blocks) {
  OCTAVO_CHECK(config.max_num_seqs > 0 && config.max_num_batched_tokens > 0, "scheduler: steps of ",
               config.max_num_seqs, " sequences and ", config.max_num_batched_tokens, " tokens");
}

void Scheduler::add(Sequence* sequence) {
  OCTAVO_CHECK(sequence->state == SequenceState::kNew && !sequence->tokens.empty(),
               "scheduler: sequence ", sequence->id, " is not new or has no tokens");
  sequence->state = SequenceState::kWaiting;
  waiting_.push_back(sequence);
}

void Scheduler::fork(const Sequence& parent, Sequence* child) {
  OCTAVO_CHECK(!step_in_flight_, "scheduler: fork during a step");
  OCTAVO_CHECK(child->state == SequenceState::kNew && !child->tokens.empty() &&
                   have_common_beginning(child->tokens, parent.tokens),
               "scheduler: sequence ", child->id, " is not new or does not begin as ", parent.id);
  child->cache_salt = parent.cache_salt;
  if (parent.state == SequenceState::kWaiting) {
    child->state = SequenceState::kWaiting;
    waiting_.insert_after(parent, child);
    return;
  }
  OCTAVO_CHECK(parent.state == SequenceState::kRunning, "scheduler: fork of sequence ", parent.id,
               ", which is not in flight");
  child->num_computed = std::min(parent.num_computed, child->num_tokens() - 1);
  child->num_cached_tokens = std::min(parent.num_cached_tokens, child->prompt_len);
  child->blocks = blocks_.fork(parent.blocks, child->num_computed);
  child->state = SequenceState::kRunning;
  running_.insert_after(parent, child);
}

void Scheduler::remove(Sequence* sequence) {
  if (sequence->state == SequenceState::kWaiting) waiting_.erase(sequence);
  if (sequence->state == SequenceState::kRunning) running_.erase(sequence);
  if (sequence->step_index_ >= 0) scheduled_[sequence->step_index_] = nullptr;
  sequence->step_index_ = -1;
  sequence->num_scheduled = 0;
  sequence->blocks.clear();
  sequence->state = SequenceState::kFinished;
}

void Scheduler::preempt_all() {
  OCTAVO_CHECK(!step_in_flight_, "scheduler: preempt_all during a step");
  while (!running_.empty()) preempt(running_.back());
}

StepPlan Scheduler::schedule() {
  OCTAVO_CHECK(!step_in_flight_, "scheduler: schedule before the last step was completed");
  StepPlan plan;
  scheduled_.clear();
  if (schedule_running(plan)) schedule_waiting(plan);
  if (plan.empty()) displace_parked(plan);
  step_in_flight_ = !plan.empty();
  OCTAVO_CHECK(step_in_flight_ || (all_parked(running_) && all_parked(waiting_)),
               "scheduler: no sequence can go on; the first one has ",
               (running_.empty() ? waiting_ : running_).front()->num_tokens(), " tokens for ",
               blocks_.num_blocks(), " blocks, expected that every sequence fits");
  return plan;
}

void Scheduler::complete(const StepPlan& plan) {
  OCTAVO_CHECK(step_in_flight_ && plan.sequences.size() == scheduled_.size(),
               "scheduler: complete of a plan that is not in flight");
  for (Sequence* sequence : scheduled_) {
    if (!sequence) continue;
    sequence->num_computed += sequence->num_scheduled;
    sequence->num_scheduled = 0;
    sequence->step_index_ = -1;
  }
  scheduled_.clear();
  step_in_flight_ = false;
#ifndef NDEBUG
  check_invariants(*this, blocks_);
#endif
}

// True when no sequence lost its blocks: only then may others be admitted.
bool Scheduler::schedule_running(StepPlan& plan) {
  bool undisturbed = true;
  for (Sequence* sequence = running_.front(); sequence && has_room(plan);
       sequence = SequenceList::next(sequence)) {
    if (sequence->parked) continue;
    OCTAVO_CHECK(sequence->num_remaining() > 0, "scheduler: sequence ", sequence->id,
                 " has no token to compute");
    const int32_t num_scheduled =
        std::min(sequence->num_remaining(), config_.max_num_batched_tokens - plan.num_tokens);
    // Those that are in the plan already stand before this one and are never the last.
    while (!blocks_.grow(sequence->blocks, sequence->num_computed,
                         sequence->num_computed + num_scheduled, plan.copies)) {
      Sequence* victim = running_.back();
      preempt(victim);
      undisturbed = false;
      if (victim == sequence) return false;
    }
    take(sequence, plan);
  }
  return undisturbed;
}

void Scheduler::schedule_waiting(StepPlan& plan) {
  Sequence* next = waiting_.front();
  while (next && has_room(plan) && running_.size() < config_.max_num_seqs) {
    Sequence* sequence = next;
    next = SequenceList::next(sequence);
    if (sequence->parked) continue;
    if (!admit(sequence, plan)) return;
    take(sequence, plan);
  }
}

// Nothing can run, but for want of the places and blocks that parked sequences hold: these are
// taken from the last ones until something can. What they computed is lost, not what came of it.
void Scheduler::displace_parked(StepPlan& plan) {
  while (plan.empty() && !running_.empty() && !all_parked(waiting_)) {
    preempt(running_.back());
    schedule_waiting(plan);
  }
}

// Gives it the blocks of all its known tokens, not of the first chunk only: otherwise sequences
// that are admitted together would push each other out before their prompts end.
bool Scheduler::admit(Sequence* sequence, const StepPlan& plan) {
  if (blocks_.num_blocks_free() == 0) return false;  // the last token always needs a fresh one
  const PrefixMatch match = sequence->reads_prefix_cache
                                ? blocks_.match(sequence->tokens, sequence->cache_salt)
                                : PrefixMatch();
  const int32_t budget = config_.max_num_batched_tokens - plan.num_tokens;
  if (!config_.enable_chunked_prefill && !plan.empty() &&
      sequence->num_tokens() - match.num_tokens > budget) {
    return false;
  }
  if (!blocks_.allocate(match, sequence->num_tokens(), sequence->blocks)) return false;

  sequence->num_computed = match.num_tokens;
  if (sequence->num_cached_tokens < 0) {
    sequence->num_cached_tokens = std::min(match.num_tokens, sequence->prompt_len);
  }
  num_recomputed_tokens_ += std::max(sequence->num_lost_ - match.num_tokens, 0);
  sequence->num_lost_ = 0;
  waiting_.erase(sequence);
  running_.push_back(sequence);
  sequence->state = SequenceState::kRunning;
  return true;
}

void Scheduler::preempt(Sequence* sequence) {
  running_.erase(sequence);
  sequence->blocks.clear();
  sequence->num_lost_ = sequence->num_computed;
  sequence->num_computed = 0;
  ++sequence->num_preemptions;
  ++num_preemptions_;
  sequence->state = SequenceState::kWaiting;
  waiting_.push_front(sequence);
}

void Scheduler::take(Sequence* sequence, StepPlan& plan) {
  const int32_t begin = sequence->num_computed;
  const int32_t count =
      std::min(sequence->num_remaining(), config_.max_num_batched_tokens - plan.num_tokens);
  sequence->num_scheduled = count;
  sequence->step_index_ = static_cast<int32_t>(scheduled_.size());
  scheduled_.push_back(sequence);
  plan.num_tokens += count;
  plan.sequences.push_back(
      {.sequence_id = sequence->id,
       .tokens = std::span(sequence->tokens).subspan(begin, count),
       .num_computed = begin,
       .prompt_len = sequence->prompt_len,
       .block_table = sequence->blocks.ids().first(blocks_.blocks_for(begin + count)),
       .samples = begin + count == sequence->num_tokens()});
  // Sequences that are admitted after it, into this step, find what it is about to compute: every
  // layer stores the step's keys and values before it reads any. Nothing that is in the plan is
  // preempted.
  blocks_.publish(sequence->blocks, std::span(sequence->tokens).first(begin + count),
                  sequence->cache_salt);
}

bool Scheduler::has_room(const StepPlan& plan) const {
  return plan.num_tokens < config_.max_num_batched_tokens &&
         static_cast<int64_t>(plan.sequences.size()) < config_.max_num_seqs;
}

}  // namespace octavo
