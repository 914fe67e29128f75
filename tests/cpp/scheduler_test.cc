#include "sched/scheduler.h"

#include <doctest/doctest.h>

#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "octavo/error.h"
#include "sched/invariants.h"

namespace octavo {
namespace {

using Tokens = std::vector<int32_t>;
using Ids = std::vector<int64_t>;
constexpr int32_t kBlock = 4;

Tokens iota(int32_t count, int32_t first = 0) {
  Tokens tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// A scheduler and the engine's part of the work: owning sequences and appending tokens.
struct House {
  explicit House(SchedulerConfig config, int32_t num_blocks = 64, bool prefix_caching = true)
      : blocks(num_blocks, kBlock, prefix_caching), scheduler(config, blocks) {}

  Sequence* make(Tokens prompt, std::string salt = "") {
    const auto id = static_cast<int64_t>(sequences.size());
    sequences.push_back(std::make_unique<Sequence>(id, std::move(prompt), std::move(salt)));
    return sequences.back().get();
  }

  Sequence* add(Tokens prompt, std::string salt = "") {
    Sequence* sequence = make(std::move(prompt), std::move(salt));
    scheduler.add(sequence);
    return sequence;
  }

  Sequence* fork(const Sequence& parent, int32_t num_tokens) {
    Sequence* child = make({parent.tokens.begin(), parent.tokens.begin() + num_tokens});
    scheduler.fork(parent, child);
    return child;
  }

  // One step; samples the token 1000 + position. Returns the plan, whose spans are not valid.
  StepPlan step() {
    StepPlan plan = scheduler.schedule();
    if (plan.empty()) return plan;
    scheduler.complete(plan);
    for (const ScheduledSequence& scheduled : plan.sequences) {
      Tokens& tokens = sequences[scheduled.sequence_id]->tokens;
      if (scheduled.samples) tokens.push_back(1000 + static_cast<int32_t>(tokens.size()));
    }
    check_invariants(scheduler, blocks);
    return plan;
  }

  BlockManager blocks;
  Scheduler scheduler;
  std::vector<std::unique_ptr<Sequence>> sequences;
};

Ids scheduled_ids(const StepPlan& plan) {
  Ids ids;
  for (const ScheduledSequence& scheduled : plan.sequences) ids.push_back(scheduled.sequence_id);
  return ids;
}

Ids queue_ids(const SequenceList& queue) {
  Ids ids;
  for (const Sequence* s = queue.front(); s; s = SequenceList::next(s)) ids.push_back(s->id);
  return ids;
}

TEST_CASE("without sequences the plan is empty") {
  House house({});
  CHECK(house.scheduler.schedule().empty());
  CHECK_FALSE(house.scheduler.step_in_flight());
  CHECK(house.scheduler.schedule().empty());
}

TEST_CASE("a plan shows the runner what to compute") {
  House house({.max_num_seqs = 4, .max_num_batched_tokens = 8});
  Sequence* a = house.add(iota(6));
  Sequence* b = house.add(iota(6, 100));
  const StepPlan plan = house.scheduler.schedule();
  REQUIRE(plan.sequences.size() == 2);
  CHECK(plan.num_tokens == 8);
  CHECK(plan.copies.empty());
  const ScheduledSequence& first = plan.sequences[0];
  CHECK(first.sequence_id == a->id);
  CHECK(first.tokens.data() == a->tokens.data());
  CHECK(first.tokens.size() == 6);
  CHECK(first.num_computed == 0);
  CHECK(first.prompt_len == 6);
  CHECK(first.block_table.size() == 2);
  CHECK(first.samples);
  const ScheduledSequence& second = plan.sequences[1];
  CHECK(second.tokens.size() == 2);
  CHECK(second.block_table.size() == 1);
  CHECK_FALSE(second.samples);
  CHECK(a->num_scheduled == 6);
  CHECK(a->num_computed == 0);
  CHECK(b->num_scheduled == 2);
  house.scheduler.complete(plan);
  CHECK(a->num_scheduled == 0);
  CHECK(a->num_computed == 6);
  CHECK(b->num_computed == 2);
  a->tokens.push_back(7);
  const StepPlan next = house.scheduler.schedule();
  CHECK(next.sequences[0].tokens.size() == 1);
  CHECK(next.sequences[0].tokens[0] == 7);
  CHECK(next.sequences[0].num_computed == 6);
  CHECK(next.sequences[1].tokens.size() == 4);
  CHECK(next.sequences[1].samples);
}

TEST_CASE("running sequences come before waiting ones, within both budgets") {
  House house({.max_num_seqs = 3, .max_num_batched_tokens = 10});
  for (int i = 0; i < 5; ++i) house.add(iota(4, 100 * i));
  CHECK(scheduled_ids(house.step()) == Ids{0, 1, 2});
  CHECK(house.sequences[2]->num_computed == 2);
  CHECK(house.scheduler.num_running() == 3);
  CHECK(house.scheduler.num_waiting() == 2);
  CHECK(scheduled_ids(house.step()) == Ids{0, 1, 2});
  CHECK(house.sequences[2]->num_computed == 4);
  house.scheduler.remove(house.sequences[1].get());
  CHECK(scheduled_ids(house.step()) == Ids{0, 2, 3});
}

TEST_CASE("a budget of one token makes progress in order of arrival") {
  House house({.max_num_seqs = 8, .max_num_batched_tokens = 1});
  house.add(iota(3));
  house.add(iota(3, 50));
  for (int i = 0; i < 3; ++i) CHECK(scheduled_ids(house.step()) == Ids{0});
  CHECK(house.sequences[0]->tokens.size() == 4);
  house.scheduler.remove(house.sequences[0].get());
  CHECK(scheduled_ids(house.step()) == Ids{1});
}

TEST_CASE("nobody overtakes the first waiting sequence") {
  House house({.max_num_seqs = 8, .max_num_batched_tokens = 64}, 8);
  Sequence* running = house.add(iota(16));
  house.add(iota(20, 100));  // five blocks, four are free
  house.add(iota(1, 200));
  CHECK(scheduled_ids(house.step()) == Ids{0});
  CHECK(scheduled_ids(house.step()) == Ids{0});
  CHECK(queue_ids(house.scheduler.waiting()) == Ids{1, 2});
  house.scheduler.remove(running);
  CHECK(scheduled_ids(house.step()) == Ids{1, 2});
}

TEST_CASE("admission needs the blocks of all known tokens, not of the first chunk") {
  House house({.max_num_seqs = 8, .max_num_batched_tokens = 4}, 8);
  Sequence* a = house.add(iota(24));
  house.add(iota(12, 100));
  CHECK(scheduled_ids(house.step()) == Ids{0});
  CHECK(a->blocks.size() == 6);
  for (int i = 0; i < 6; ++i) CHECK(scheduled_ids(house.step()) == Ids{0});
  CHECK(house.scheduler.num_preemptions() == 0);
  CHECK(house.scheduler.num_waiting() == 1);
}

TEST_CASE("without chunked prefill a sequence waits for a budget that holds it") {
  House house({.max_num_seqs = 8, .max_num_batched_tokens = 10, .enable_chunked_prefill = false});
  house.add(iota(6));
  house.add(iota(6, 50));
  house.add(iota(2, 90));
  CHECK(scheduled_ids(house.step()) == Ids{0});
  CHECK(scheduled_ids(house.step()) == Ids{0, 1, 2});
  CHECK(house.sequences[1]->num_computed == 6);
  // What the prefix cache supplies needs no budget.
  house.add(iota(14, 50));
  house.scheduler.remove(house.sequences[1].get());
  CHECK(scheduled_ids(house.step()) == Ids{0, 2});
  for (int i = 0; i < 3; ++i) house.scheduler.remove(house.sequences[i].get());
  // Longer than any budget and nothing else to do: it is begun all the same.
  CHECK(scheduled_ids(house.step()) == Ids{3});
  CHECK(house.sequences[3]->num_cached_tokens == 4);
  CHECK(house.sequences[3]->num_computed == 14);
}

TEST_CASE("the prefix cache supplies whole blocks and the last token is computed") {
  House house({.max_num_seqs = 8, .max_num_batched_tokens = 64});
  Sequence* first = house.add(iota(8));
  house.step();
  CHECK(first->num_cached_tokens == 0);
  Sequence* same = house.add(iota(8));
  Sequence* longer = house.add(iota(9));
  Sequence* salted = house.add(iota(9), "tenant");
  CHECK(same->num_cached_tokens == -1);
  const StepPlan plan = house.step();
  CHECK(same->num_cached_tokens == 4);
  CHECK(longer->num_cached_tokens == 8);
  CHECK(salted->num_cached_tokens == 0);
  CHECK(plan.num_tokens == 1 + 4 + 1 + 9);
  CHECK(house.blocks.prefix_cache_queries() == 8 + 8 + 9 + 9);
  CHECK(house.blocks.prefix_cache_hits() == 12);
}

TEST_CASE("preemption takes the last running sequence, which waits in front and loses nothing") {
  House house({.max_num_seqs = 8, .max_num_batched_tokens = 64}, 6, /*prefix_caching=*/false);
  Sequence* a = house.add(iota(8));
  Sequence* b = house.add(iota(7, 100));
  Sequence* c = house.add(iota(7, 200));
  CHECK(scheduled_ids(house.step()) == Ids{0, 1, 2});
  house.add(iota(1, 300));
  CHECK(house.blocks.num_blocks_free() == 0);
  // a needs a third block: c goes. No admission in such a step, although a block is free.
  CHECK(scheduled_ids(house.step()) == Ids{0, 1});
  CHECK(house.blocks.num_blocks_free() == 1);
  CHECK(c->num_computed == 0);
  CHECK(c->blocks.empty());
  CHECK(c->num_preemptions == 1);
  CHECK(c->state == SequenceState::kWaiting);
  CHECK(c->tokens.size() == 8);
  CHECK(queue_ids(house.scheduler.waiting()) == Ids{2, 3});
  CHECK(house.scheduler.num_preemptions() == 1);
  CHECK(house.scheduler.num_recomputed_tokens() == 0);
  CHECK(scheduled_ids(house.step()) == Ids{0, 1});
  CHECK(b->blocks.size() == 3);
  house.scheduler.remove(a);
  CHECK(scheduled_ids(house.step()) == Ids{1, 2, 3});
  CHECK(c->num_computed == 8);
  CHECK(house.scheduler.num_recomputed_tokens() == 7);
}

TEST_CASE("several victims keep their order, and a sequence may be its own victim") {
  House house({.max_num_seqs = 8, .max_num_batched_tokens = 64}, 5, /*prefix_caching=*/false);
  for (int i = 0; i < 5; ++i) house.add(iota(4, 100 * i));
  CHECK(scheduled_ids(house.step()) == Ids{0, 1, 2, 3, 4});
  // 0 takes the block of 4, 1 that of 3; 2 finds no other victim than itself.
  CHECK(scheduled_ids(house.step()) == Ids{0, 1});
  CHECK(queue_ids(house.scheduler.waiting()) == Ids{2, 3, 4});
  CHECK(house.scheduler.num_preemptions() == 3);
}

TEST_CASE("recomputed tokens do not include what the prefix cache kept") {
  House house({.max_num_seqs = 8, .max_num_batched_tokens = 64}, 6);
  Sequence* a = house.add(iota(12));
  Sequence* b = house.add(iota(11, 100));
  house.step();
  CHECK(scheduled_ids(house.step()) == Ids{0});
  CHECK(b->num_preemptions == 1);
  house.scheduler.remove(a);
  // 11 tokens were computed; two of their blocks were full and are still there.
  const StepPlan plan = house.step();
  CHECK(plan.sequences[0].num_computed == 8);
  CHECK(plan.num_tokens == 4);
  CHECK(house.scheduler.num_recomputed_tokens() == 3);
  CHECK(b->num_cached_tokens == 0);
}

TEST_CASE("a fork shares the computed blocks and writes to copies") {
  House house({.max_num_seqs = 8, .max_num_batched_tokens = 64});
  Sequence* parent = house.add(iota(6));
  Sequence* other = house.add(iota(3, 100));
  house.step();
  Sequence* child = house.fork(*parent, 6);
  CHECK(queue_ids(house.scheduler.running()) == Ids{0, 2, 1});
  CHECK(child->num_computed == 5);
  CHECK(child->blocks.size() == 2);
  CHECK(house.blocks.num_blocks_used() == 3);
  const StepPlan plan = house.step();
  CHECK(scheduled_ids(plan) == Ids{0, 2, 1});
  // The parent comes first and moves; then the child is alone in the old block.
  REQUIRE(plan.copies.size() == 1);
  CHECK(plan.copies[0].target == parent->blocks.ids()[1]);
  CHECK(plan.copies[0].source == child->blocks.ids()[1]);
  CHECK(parent->blocks.ids()[0] == child->blocks.ids()[0]);
  CHECK(child->num_computed == 6);
  CHECK(other->num_computed == 4);
}

TEST_CASE("a fork of a full block copies it, because the block is shared") {
  House house({.max_num_seqs = 8, .max_num_batched_tokens = 64});
  Sequence* parent = house.add(iota(8));
  house.step();
  Sequence* child = house.fork(*parent, 8);
  CHECK(child->num_computed == 7);
  CHECK(child->num_cached_tokens == 0);
  const StepPlan plan = house.step();
  REQUIRE(plan.copies.size() == 1);
  CHECK(plan.copies[0].source == parent->blocks.ids()[1]);
  CHECK(plan.copies[0].target == child->blocks.ids()[1]);
  CHECK(parent->blocks.size() == 3);
}

TEST_CASE("a fork behind a waiting parent waits, with the parent's salt") {
  House house({.max_num_seqs = 1, .max_num_batched_tokens = 64});
  house.add(iota(4));
  Sequence* parent = house.add(iota(6, 100), "tenant");
  house.add(iota(4, 200));
  house.step();
  Sequence* child = house.fork(*parent, 6);
  CHECK(queue_ids(house.scheduler.waiting()) == Ids{1, 3, 2});
  CHECK(child->blocks.empty());
  CHECK(child->num_computed == 0);
  CHECK(child->cache_salt == "tenant");
}

TEST_CASE("forks may exceed max_num_seqs, a step does not") {
  House house({.max_num_seqs = 2, .max_num_batched_tokens = 64});
  Sequence* parent = house.add(iota(6));
  house.step();
  for (int i = 0; i < 3; ++i) house.fork(*parent, 6);
  house.add(iota(2, 100));
  CHECK(house.scheduler.num_running() == 4);
  CHECK(scheduled_ids(house.step()) == Ids{0, 3});
  house.scheduler.remove(parent);
  CHECK(scheduled_ids(house.step()) == Ids{3, 2});
}

// Computes what is known, and appends nothing.
Ids compute(House& house) {
  const StepPlan plan = house.scheduler.schedule();
  Ids ids = scheduled_ids(plan);
  if (!plan.empty()) house.scheduler.complete(plan);
  check_invariants(house.scheduler, house.blocks);
  return ids;
}

TEST_CASE("a fork may go on behind its parent, and computes only what is new") {
  House house({});
  Sequence* parent = house.add(iota(18));
  compute(house);
  Sequence* child = house.make(iota(19));
  house.scheduler.fork(*parent, child);
  CHECK(child->num_computed == 18);
  parent->tokens.push_back(99);
  const StepPlan plan = house.scheduler.schedule();
  REQUIRE(plan.sequences.size() == 2);
  CHECK(plan.sequences[0].tokens.size() == 1);
  CHECK(plan.sequences[1].tokens.size() == 1);
  CHECK(plan.copies.size() == 1);  // of the block in which both go on
  house.scheduler.complete(plan);
}

TEST_CASE("parked sequences are passed over, and give way when nothing else can run") {
  House house({}, 16, false);
  Sequence* first = house.add(iota(30));
  Sequence* second = house.add(iota(30, 100));
  CHECK(compute(house) == Ids{0, 1});
  first->parked = second->parked = true;
  CHECK(compute(house).empty());
  Sequence* third = house.add(iota(20, 200));
  CHECK(compute(house) == Ids{2});
  CHECK(first->state == SequenceState::kRunning);
  CHECK(second->state == SequenceState::kWaiting);
  CHECK(second->num_preemptions == 1);
  third->parked = true;
  CHECK(compute(house).empty());  // the one that gave way is not computed again while it is parked
  second->parked = false;
  CHECK(compute(house) == Ids{1});
  CHECK(third->state == SequenceState::kWaiting);
  for (Sequence* sequence : {first, second, third}) house.scheduler.remove(sequence);
  CHECK(house.blocks.num_blocks_used() == 0);
}

TEST_CASE("fork refuses what is not a beginning, a finished parent and a step in flight") {
  House house({});
  Sequence* parent = house.add(iota(6));
  CHECK_THROWS_AS(house.scheduler.fork(*parent, house.make(iota(7, 1))), InternalError);
  CHECK_THROWS_AS(house.scheduler.fork(*parent, house.make(iota(6, 1))), InternalError);
  CHECK_THROWS_AS(house.scheduler.fork(*parent, house.make({})), InternalError);
  CHECK_THROWS_AS(house.scheduler.fork(*parent, parent), InternalError);
  const StepPlan plan = house.scheduler.schedule();
  CHECK_THROWS_AS(house.scheduler.fork(*parent, house.make(iota(6))), InternalError);
  CHECK_THROWS_AS(house.scheduler.schedule(), InternalError);
  house.scheduler.complete(plan);
  CHECK_THROWS_AS(house.scheduler.complete(plan), InternalError);
  house.scheduler.remove(parent);
  CHECK_THROWS_AS(house.scheduler.fork(*parent, house.make(iota(6))), InternalError);
  CHECK_THROWS_AS(house.scheduler.add(parent), InternalError);
}

TEST_CASE("remove works in every state and twice") {
  House house({.max_num_seqs = 2, .max_num_batched_tokens = 64});
  for (int i = 0; i < 4; ++i) house.add(iota(6, 10 * i));
  Sequence* fresh = house.make(iota(3));
  house.step();
  for (int round = 0; round < 2; ++round) {
    house.scheduler.remove(fresh);
    house.scheduler.remove(house.sequences[0].get());
    house.scheduler.remove(house.sequences[3].get());
    CHECK(house.scheduler.num_running() == 1);
    CHECK(house.scheduler.num_waiting() == 1);
    CHECK(house.blocks.num_blocks_used() == 2);
  }
  CHECK(scheduled_ids(house.step()) == Ids{1, 2});
  for (const auto& sequence : house.sequences) house.scheduler.remove(sequence.get());
  CHECK(house.scheduler.schedule().empty());
  CHECK(house.blocks.num_blocks_used() == 0);
}

TEST_CASE("sequences that begin in one step compute their common prefix once") {
  House house({.max_num_seqs = 8, .max_num_batched_tokens = 64});
  Sequence* a = house.add(iota(10));
  Sequence* b = house.add(iota(10));
  Sequence* c = house.add(iota(5));
  const StepPlan plan = house.scheduler.schedule();
  CHECK(plan.num_tokens == 10 + 2 + 1);  // blocks of 4 tokens
  CHECK(plan.sequences[1].num_computed == 8);
  CHECK(b->blocks.ids()[1] == a->blocks.ids()[1]);
  CHECK(b->blocks.ids()[2] != a->blocks.ids()[2]);
  CHECK(c->num_cached_tokens == 4);
  house.scheduler.complete(plan);
  check_invariants(house.scheduler, house.blocks);
}

TEST_CASE("a sequence removed while its step is in flight is not completed; what it stores stays") {
  House house({.max_num_seqs = 8, .max_num_batched_tokens = 64});
  Sequence* a = house.add(iota(8));
  Sequence* b = house.add(iota(8, 100));
  const StepPlan plan = house.scheduler.schedule();
  house.scheduler.remove(a);
  house.scheduler.complete(plan);
  check_invariants(house.scheduler, house.blocks);
  CHECK(a->num_computed == 0);
  CHECK(b->num_computed == 8);
  CHECK(house.blocks.match(iota(9), "").num_tokens == 8);
  CHECK(house.blocks.match(iota(9, 100), "").num_tokens == 8);
  CHECK(house.blocks.num_blocks_used() == 2);
}

TEST_CASE("when all are preempted they wait in order, before those that waited") {
  House house({.max_num_seqs = 2, .max_num_batched_tokens = 8});
  Sequence* a = house.add(iota(6));
  Sequence* b = house.add(iota(20, 100));
  house.add(iota(3, 200));
  house.step();
  house.fork(*a, 6);
  CHECK(queue_ids(house.scheduler.running()) == Ids{0, 3, 1});
  house.scheduler.preempt_all();
  CHECK(house.scheduler.num_running() == 0);
  CHECK(queue_ids(house.scheduler.waiting()) == Ids{0, 3, 1, 2});
  CHECK(house.blocks.num_blocks_used() == 0);
  CHECK(a->num_computed == 0);
  CHECK(a->tokens.size() == 7);  // what was generated stays
  CHECK(b->num_preemptions == 1);
  CHECK(house.scheduler.num_preemptions() == 3);
  check_invariants(house.scheduler, house.blocks);
  house.scheduler.preempt_all();  // nobody runs: nothing
  CHECK(house.scheduler.num_preemptions() == 3);
  house.blocks.reset_prefix_cache();
  house.step();
  // The fork finds a block of its parent's in the step that computes it again.
  CHECK(house.scheduler.num_recomputed_tokens() == 6 + 5 - 4);
  CHECK(queue_ids(house.scheduler.running()) == Ids{0, 3});

  const StepPlan plan = house.scheduler.schedule();
  CHECK_THROWS_AS(house.scheduler.preempt_all(), InternalError);
  house.scheduler.complete(plan);
}

TEST_CASE("what can never fit is an error, not a step without progress") {
  House house({}, 2);
  house.add(iota(9));
  CHECK_THROWS_AS(house.scheduler.schedule(), InternalError);
}

TEST_CASE("a sequence that has the whole cache can always go on") {
  House house({}, 2);
  Sequence* parent = house.add(iota(8));
  house.step();
  Sequence* child = house.fork(*parent, 8);
  house.scheduler.remove(parent);
  // Both blocks are cached, the child writes to the second, and there is no third one.
  CHECK(scheduled_ids(house.step()) == Ids{1});
  CHECK(child->num_computed == 8);
  CHECK(house.scheduler.num_preemptions() == 0);
}

TEST_CASE("a hundred thousand waiting sequences are aborted in any order") {
  House house({.max_num_seqs = 1, .max_num_batched_tokens = 1});
  constexpr int kCount = 100000;
  for (int i = 0; i < kCount; ++i) house.add({i});
  house.scheduler.complete(house.scheduler.schedule());
  for (int i = 0; i < kCount; ++i) {
    house.scheduler.remove(house.sequences[(i * 7919LL) % kCount].get());
  }
  CHECK(house.scheduler.num_waiting() == 0);
  CHECK(house.scheduler.num_running() == 0);
  check_invariants(house.scheduler, house.blocks);
}

TEST_CASE("the invariants notice a lost block and a sequence in the wrong state") {
  House house({});
  Sequence* a = house.add(iota(6));
  house.step();
  SUBCASE("a reference without an owner") {
    const BlockTable leaked = house.blocks.fork(a->blocks, 4);
    CHECK_THROWS_AS(check_invariants(house.scheduler, house.blocks), InternalError);
  }
  SUBCASE("a table that does not cover the computed tokens") {
    a->num_computed += 3;
    a->tokens.resize(9);
    CHECK_THROWS_AS(check_invariants(house.scheduler, house.blocks), InternalError);
  }
  SUBCASE("a state that is not the queue's") {
    a->state = SequenceState::kWaiting;
    CHECK_THROWS_AS(check_invariants(house.scheduler, house.blocks), InternalError);
    a->state = SequenceState::kRunning;
    check_invariants(house.scheduler, house.blocks);
  }
}

}  // namespace
}  // namespace octavo
