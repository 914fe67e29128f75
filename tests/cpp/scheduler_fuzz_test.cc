// Random workloads through the scheduler and the cache with a fake model runner. Its KV memory
// holds for every slot a fingerprint of the salt and all tokens up to that position, and its
// attention reads every slot of a sequence: any wrong sharing, copy, eviction or prefix hit shows
// at once. OCTAVO_FUZZ_SEED in the environment runs one seed.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/check.h"
#include "sched/invariants.h"
#include "sched/scheduler.h"

namespace octavo {
namespace {

using Tokens = std::vector<int32_t>;

uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = a ^ (b + 0x9e3779b97f4a7c15 + (a << 6) + (a >> 2));
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t first_print(const std::string& salt) { return mix(1, std::hash<std::string>()(salt)); }

// What the fake layers store for a token: it depends on everything before it.
uint64_t next_print(uint64_t print, int32_t token) {
  return mix(print, 1 + static_cast<uint32_t>(token));
}

// The fake model and sampler. Few tokens, so that sequences meet again by chance.
constexpr int32_t kVocab = 5;
int32_t sample(uint64_t print, uint64_t seed) {
  return static_cast<int32_t>(mix(print, seed) % kVocab);
}

// What a request must produce, whatever happens around it.
Tokens generate_alone(Tokens tokens, const std::string& salt, uint64_t seed, size_t length) {
  uint64_t print = first_print(salt);
  for (const int32_t token : tokens) print = next_print(print, token);
  while (tokens.size() < length) {
    tokens.push_back(sample(print, seed));
    print = next_print(print, tokens.back());
  }
  return tokens;
}

struct Setup {
  SchedulerConfig scheduler;
  int32_t num_blocks = 16;
  int32_t block_size = 4;
  bool prefix_caching = true;

  int32_t capacity() const { return num_blocks * block_size; }
};

struct RequestSpec {
  Tokens prompt;
  std::string salt;
  uint64_t seed = 0;
  int32_t length = 0;   // prompt and output
  int32_t fork_at = 0;  // forks a child when it has this many tokens; 0: never
};

struct Request {
  Request(int64_t id, RequestSpec s) : spec(std::move(s)), sequence(id, spec.prompt, spec.salt) {}

  void extend_prints() {
    if (prints.empty()) prints.push_back(first_print(sequence.cache_salt));
    while (prints.size() <= sequence.tokens.size()) {
      prints.push_back(next_print(prints.back(), sequence.tokens[prints.size() - 1]));
    }
  }

  RequestSpec spec;
  Sequence sequence;
  std::vector<uint64_t> prints;  // [tokens + 1]: before the first token, then of each
  uint64_t epoch = 0;            // cache resets before its admission
  int32_t admission = -1;        // preemptions before its admission
};

// The engine and the model runner around a scheduler.
class House {
 public:
  explicit House(const Setup& setup)
      : setup_(setup),
        blocks_(setup.num_blocks, setup.block_size, setup.prefix_caching),
        scheduler_(setup.scheduler, blocks_),
        memory_(setup.capacity()) {}

  Request* add(RequestSpec spec) {
    Request* request = make(std::move(spec));
    scheduler_.add(&request->sequence);
    return request;
  }

  Request* fork(const Request& parent, size_t num_tokens, uint64_t seed, int32_t length) {
    RequestSpec spec = parent.spec;
    const Tokens& tokens = parent.sequence.tokens;
    spec.prompt.assign(tokens.begin(), tokens.begin() + static_cast<int64_t>(num_tokens));
    spec.seed = seed;
    spec.length = length;
    spec.fork_at = 0;
    Request* child = make(std::move(spec));
    scheduler_.fork(parent.sequence, &child->sequence);
    if (child->sequence.state == SequenceState::kRunning) {
      child->epoch = parent.epoch;
      child->admission = 0;
    }
    return child;
  }

  // Ends a request early; what it has must be the beginning of what it would have become.
  void abort(int64_t id) { end(id); }

  void reset_prefix_cache() {
    blocks_.reset_prefix_cache();
    ++epoch_;
  }

  // The engine sleeps between two steps: what the memory held is gone.
  void sleep() {
    for (const int64_t id : live_) step_bound_ += requests_.at(id)->sequence.num_computed;
    const int64_t num_live = scheduler_.num_running() + scheduler_.num_waiting();
    scheduler_.preempt_all();
    OCTAVO_CHECK(scheduler_.num_running() == 0 && scheduler_.num_waiting() == num_live &&
                 blocks_.num_blocks_used() == 0);
    reset_prefix_cache();
    memory_.assign(memory_.size(), Slot{});
    check_invariants(scheduler_, blocks_);
  }

  // Uses blocks outside the scheduler for a moment, as the evaluation of logits does.
  void borrow(int32_t num_tokens) {
    BlockTable table;
    std::vector<CopiedBlock> copies;
    const bool enough = blocks_.blocks_for(num_tokens) <= blocks_.num_blocks_free();
    OCTAVO_CHECK(blocks_.grow(table, 0, num_tokens, copies) == enough && copies.empty());
  }

  // One step. `in_flight` is called while the plan is in flight, after it ran.
  void step(const std::function<void(const StepPlan&)>& in_flight = {}) {
    const StepPlan plan = schedule();
    OCTAVO_CHECK(plan.empty() == live_.empty(), "a step without progress");
    if (plan.empty()) return;
    ++num_steps_;
    num_tokens_ += plan.num_tokens;
    OCTAVO_CHECK(num_steps_ <= step_bound_, "requests do not end");
    check_plan(plan);
    execute(plan);
    if (in_flight) in_flight(plan);
    complete(plan);
    check_invariants(scheduler_, blocks_);
  }

  // A step whose model run throws: the engine ends its requests and goes on with the others.
  void failing_step() {
    const StepPlan plan = schedule();
    if (plan.empty()) return;
    reset_prefix_cache();  // it knows what the step was to compute
    for (const ScheduledSequence& scheduled : plan.sequences) end(scheduled.sequence_id);
    scheduler_.complete(plan);
    check_invariants(scheduler_, blocks_);
  }

  void drain() {
    while (!live_.empty()) step();
    OCTAVO_CHECK(scheduler_.schedule().empty() && scheduler_.num_running() == 0 &&
                 scheduler_.num_waiting() == 0);
    OCTAVO_CHECK(blocks_.num_blocks_used() == 0 && blocks_.num_blocks_free() == setup_.num_blocks,
                 "blocks are lost");
    check_invariants(scheduler_, blocks_);
  }

  const std::vector<int64_t>& live() const { return live_; }
  Request& request(int64_t id) { return *requests_.at(id); }
  int64_t num_steps() const { return num_steps_; }
  int64_t num_tokens() const { return num_tokens_; }  // computed
  const Scheduler& scheduler() const { return scheduler_; }
  const BlockManager& blocks() const { return blocks_; }
  // The tokens of every ended request, by id.
  const std::unordered_map<int64_t, Tokens>& results() const { return results_; }

 private:
  struct Slot {
    uint64_t print = 0;
    uint64_t epoch = 0;  // cache resets before it was written
  };

  Request* make(RequestSpec spec) {
    const int64_t id = next_id_++;
    // In every step the first running sequence computes a token, and it is never preempted.
    step_bound_ += spec.length;
    live_.push_back(id);
    return (requests_[id] = std::make_unique<Request>(id, std::move(spec))).get();
  }

  void end(int64_t id) {
    const Request& request = *requests_.at(id);
    const Tokens& tokens = request.sequence.tokens;
    OCTAVO_CHECK(tokens == generate_alone(request.spec.prompt, request.spec.salt, request.spec.seed,
                                          tokens.size()),
                 "request ", id, " has wrong tokens");
    results_[id] = tokens;
    scheduler_.remove(&requests_.at(id)->sequence);
    scheduler_.remove(&requests_.at(id)->sequence);
    requests_.erase(id);
    live_.erase(std::find(live_.begin(), live_.end(), id));
  }

  StepPlan schedule() {
    for (int32_t block = 0; block < blocks_.num_blocks(); ++block) {
      last_entry_ = std::max(last_entry_, blocks_.prefix_cache().entry_id(block));
    }
    return scheduler_.schedule();
  }

  void check_plan(const StepPlan& plan) {
    int32_t num_tokens = 0;
    std::unordered_set<int64_t> ids;
    for (const ScheduledSequence& scheduled : plan.sequences) {
      const Sequence& sequence = requests_.at(scheduled.sequence_id)->sequence;
      const auto count = static_cast<int32_t>(scheduled.tokens.size());
      const int32_t end = scheduled.num_computed + count;
      num_tokens += count;
      OCTAVO_CHECK(ids.insert(scheduled.sequence_id).second && count > 0);
      OCTAVO_CHECK(scheduled.num_computed == sequence.num_computed &&
                   scheduled.tokens.data() == sequence.tokens.data() + sequence.num_computed &&
                   scheduled.samples == (end == sequence.num_tokens()));
      OCTAVO_CHECK(static_cast<int64_t>(scheduled.block_table.size()) == blocks_.blocks_for(end));
    }
    OCTAVO_CHECK(num_tokens == plan.num_tokens &&
                 num_tokens <= setup_.scheduler.max_num_batched_tokens);
    OCTAVO_CHECK(static_cast<int32_t>(ids.size()) <= setup_.scheduler.max_num_seqs);
  }

  Slot& slot(const ScheduledSequence& scheduled, int32_t position) {
    const int32_t block = scheduled.block_table[position / setup_.block_size];
    return memory_.at(static_cast<size_t>(block) * setup_.block_size +
                      position % setup_.block_size);
  }

  // As a real step: all copies, then all stores, then attention.
  void execute(const StepPlan& plan) {
    for (const CopiedBlock& copy : plan.copies) {
      OCTAVO_CHECK(copy.source != copy.target);
      const auto source = memory_.begin() + static_cast<int64_t>(copy.source) * setup_.block_size;
      std::copy(source, source + setup_.block_size,
                memory_.begin() + static_cast<int64_t>(copy.target) * setup_.block_size);
    }
    for (const ScheduledSequence& scheduled : plan.sequences) store(scheduled);
    for (const ScheduledSequence& scheduled : plan.sequences) attend(scheduled);
  }

  void store(const ScheduledSequence& scheduled) {
    Request& request = *requests_.at(scheduled.sequence_id);
    request.extend_prints();
    if (request.admission != request.sequence.num_preemptions) {
      request.admission = request.sequence.num_preemptions;
      request.epoch = epoch_;
    }
    for (size_t i = 0; i < scheduled.tokens.size(); ++i) {
      const int32_t position = scheduled.num_computed + static_cast<int32_t>(i);
      const int32_t block = scheduled.block_table[position / setup_.block_size];
      // Others may share it from this step on, which stores before it reads.
      const bool own =
          blocks_.pool().ref_count(block) == 1 && !blocks_.prefix_cache().contains(block);
      OCTAVO_CHECK(own || blocks_.prefix_cache().entry_id(block) > last_entry_, "request ",
                   scheduled.sequence_id, " writes to a shared or cached block");
      slot(scheduled, position) = {request.prints[position + 1], epoch_};
    }
  }

  void attend(const ScheduledSequence& scheduled) {
    const Request& request = *requests_.at(scheduled.sequence_id);
    const int32_t end = scheduled.num_computed + static_cast<int32_t>(scheduled.tokens.size());
    for (int32_t position = 0; position < end; ++position) {
      const Slot& read = slot(scheduled, position);
      OCTAVO_CHECK(read.print == request.prints[position + 1], "request ", scheduled.sequence_id,
                   " reads another's token at position ", position);
      OCTAVO_CHECK(read.epoch >= request.epoch, "request ", scheduled.sequence_id,
                   " reads from before a cache reset at position ", position);
    }
  }

  void complete(const StepPlan& plan) {
    // What the fake model gives comes from its memory, not from the request.
    std::vector<std::pair<int64_t, uint64_t>> sampled;
    for (const ScheduledSequence& scheduled : plan.sequences) {
      if (!scheduled.samples || !requests_.contains(scheduled.sequence_id)) continue;
      const int32_t last =
          scheduled.num_computed + static_cast<int32_t>(scheduled.tokens.size()) - 1;
      sampled.emplace_back(scheduled.sequence_id, slot(scheduled, last).print);
    }
    scheduler_.complete(plan);
    for (const auto& [id, print] : sampled) {
      Request& request = *requests_.at(id);
      Tokens& tokens = request.sequence.tokens;
      tokens.push_back(sample(print, request.spec.seed));
      const auto size = static_cast<int32_t>(tokens.size());
      if (size == request.spec.fork_at && size < request.spec.length) {
        fork(request, tokens.size(), request.spec.seed + 1, request.spec.length);
      }
      if (size >= request.spec.length) end(id);
    }
  }

  const Setup setup_;
  BlockManager blocks_;
  Scheduler scheduler_;
  std::vector<Slot> memory_;  // [num_blocks, block_size]
  std::unordered_map<int64_t, std::unique_ptr<Request>> requests_;
  std::vector<int64_t> live_;
  std::unordered_map<int64_t, Tokens> results_;
  uint64_t epoch_ = 0;
  uint64_t last_entry_ = 0;  // of the prefix cache, when the step was scheduled
  int64_t next_id_ = 0;
  int64_t num_steps_ = 0;
  int64_t num_tokens_ = 0;
  int64_t step_bound_ = 0;
};

class Fuzzer {
 public:
  explicit Fuzzer(uint64_t seed) : random_(seed), setup_(random_setup()), house_(setup_) {
    for (Tokens& base : bases_) {
      for (int32_t i = 0; i < max_length(); ++i) base.push_back(draw(0, kVocab - 1));
    }
  }

  void run(int64_t num_steps) {
    const int32_t max_live = draw(1, 40);
    const int32_t calm = draw(3, 30);  // steps between disturbances, about
    while (house_.num_steps() < num_steps) {
      while (static_cast<int32_t>(house_.live().size()) < max_live &&
             (house_.live().empty() || chance(2))) {
        house_.add(random_spec());
      }
      if (chance(calm)) disturb();
      if (chance(50 * calm)) house_.failing_step();
      house_.step([&](const StepPlan& plan) {
        if (chance(10 * calm)) {
          house_.abort(
              plan.sequences[draw(0, static_cast<int32_t>(plan.sequences.size()) - 1)].sequence_id);
        }
      });
    }
    house_.drain();
  }

  const House& house() const { return house_; }

 private:
  int32_t draw(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random_() % static_cast<uint64_t>(high - low + 1));
  }
  bool chance(int32_t one_in) { return draw(1, one_in) == 1; }
  int32_t max_length() const { return std::min(setup_.capacity(), 100); }

  Setup random_setup() {
    Setup setup;
    setup.block_size = std::vector{1, 2, 4, 16}[draw(0, 3)];
    setup.num_blocks = draw(2, 3) == 2 ? draw(2, 8) : draw(2, 60);
    setup.prefix_caching = !chance(6);
    setup.scheduler.max_num_seqs = std::vector{1, 2, 5, 16, 64}[draw(0, 4)];
    setup.scheduler.max_num_batched_tokens = std::vector{1, 2, 7, 16, 50, 300}[draw(0, 5)];
    setup.scheduler.enable_chunked_prefill = !chance(4);
    if (!setup.scheduler.enable_chunked_prefill) {
      setup.scheduler.max_num_batched_tokens =
          std::max(setup.scheduler.max_num_batched_tokens, setup.capacity());
    }
    return setup;
  }

  // The beginning of one of three texts, often just around a block's end, and something else.
  RequestSpec random_spec() {
    RequestSpec spec;
    const Tokens& base = bases_[draw(0, 2)];
    int32_t shared = draw(0, max_length() - 1);
    if (chance(2)) shared = shared / setup_.block_size * setup_.block_size + draw(-1, 1);
    shared = std::clamp(shared, 0, max_length() - 1);
    spec.prompt.assign(base.begin(), base.begin() + shared);
    while (spec.prompt.empty() || (!chance(3) && std::ssize(spec.prompt) < max_length() - 1)) {
      spec.prompt.push_back(draw(0, kVocab - 1));
    }
    if (chance(3)) spec.salt = std::string(1, static_cast<char>('a' + draw(0, 2)));
    if (chance(20)) spec.salt = std::to_string(random_());
    spec.seed = draw(0, 2);
    spec.length = draw(static_cast<int32_t>(spec.prompt.size()) + 1, max_length());
    if (chance(2)) spec.length = std::min<int32_t>(spec.length, std::ssize(spec.prompt) + 8);
    if (chance(4)) spec.fork_at = draw(static_cast<int32_t>(spec.prompt.size()), spec.length);
    return spec;
  }

  void disturb() {
    if (chance(12)) house_.reset_prefix_cache();
    if (chance(12)) house_.sleep();
    if (chance(5)) house_.borrow(draw(1, setup_.capacity()));
    if (house_.live().empty()) return;
    const int64_t id = house_.live()[draw(0, static_cast<int32_t>(house_.live().size()) - 1)];
    if (chance(3)) {
      house_.abort(id);
    } else if (house_.live().size() < 64) {
      fork(house_.request(id));
    }
  }

  void fork(const Request& parent) {
    const int32_t known = parent.sequence.num_tokens();
    int32_t num_tokens = chance(2) ? known : draw(1, known);
    if (chance(3)) num_tokens = std::min(known, parent.sequence.prompt_len);
    for (int32_t samples = draw(1, 3); samples > 0; --samples) {
      house_.fork(parent, num_tokens, draw(0, 2), draw(num_tokens + 1, max_length()));
    }
    // As beams do: the parent ends and its blocks are the children's alone.
    if (chance(2)) house_.abort(parent.sequence.id);
  }

  std::mt19937_64 random_;
  const Setup setup_;
  House house_;
  Tokens bases_[3];
};

std::vector<uint64_t> seeds() {
  if (const char* one = std::getenv("OCTAVO_FUZZ_SEED")) return {std::strtoull(one, nullptr, 10)};
  std::vector<uint64_t> all;
  for (uint64_t seed = 0; seed < 200; ++seed) all.push_back(seed);
  return all;
}

TEST_CASE("random workloads keep every invariant, and every request gets its own tokens") {
  int64_t steps = 0, requests = 0, preemptions = 0, recomputed = 0, hits = 0;
  for (const uint64_t seed : seeds()) {
    INFO("OCTAVO_FUZZ_SEED=", seed);
    Fuzzer fuzzer(seed);
    fuzzer.run(2500);
    const House& house = fuzzer.house();
    steps += house.num_steps();
    requests += std::ssize(house.results());
    preemptions += house.scheduler().num_preemptions();
    recomputed += house.scheduler().num_recomputed_tokens();
    hits += house.blocks().prefix_cache_hits();
  }
  MESSAGE(steps, " steps, ", requests, " requests, ", preemptions, " preemptions, ", recomputed,
          " tokens recomputed, ", hits, " tokens from the prefix cache");
  // The workloads reach what they are made for.
  if (!std::getenv("OCTAVO_FUZZ_SEED")) {
    CHECK(steps >= 200 * 2500);
    CHECK(preemptions > 1000);
    CHECK(recomputed > 1000);
    CHECK(hits > 1000);
  }
}

// The same requests, forks included, under every kind of pressure.
TEST_CASE("tokens do not depend on the cache's size, the budget, chunking or prefix caching") {
  std::mt19937_64 random(1);
  std::vector<RequestSpec> specs;
  for (int32_t i = 0; i < 48; ++i) {
    RequestSpec spec;
    for (uint64_t j = random() % 40; j-- > 0;)
      spec.prompt.push_back(static_cast<int32_t>(j % kVocab));
    spec.prompt.push_back(static_cast<int32_t>(random() % kVocab));
    spec.seed = random() % 3;
    spec.salt = i % 5 ? "" : "tenant";
    spec.length = static_cast<int32_t>(spec.prompt.size() + 1 + random() % 20);
    if (i % 3 == 0) spec.fork_at = static_cast<int32_t>(spec.prompt.size()) + 1;
    specs.push_back(spec);
  }
  const auto run = [&](const Setup& setup, bool pressure) {
    House house(setup);
    for (const RequestSpec& spec : specs) house.add(spec);
    house.drain();
    CHECK((house.scheduler().num_preemptions() > 0) == pressure);
    // Forked children have ids in order of their forks, which depends on the schedule.
    std::vector<Tokens> tokens, children;
    for (int64_t id = 0; id < std::ssize(house.results()); ++id) {
      (id < std::ssize(specs) ? tokens : children).push_back(house.results().at(id));
    }
    std::ranges::sort(children);
    tokens.insert(tokens.end(), children.begin(), children.end());
    return tokens;
  };
  const auto expected = run({{1, 64, true}, 32, 4, false}, false);
  CHECK(expected.size() > specs.size());
  for (const bool caching : {false, true}) {
    for (const int32_t budget : {1, 32, 1000}) {
      for (const int32_t max_num_seqs : {3, 64}) {
        CAPTURE(caching);
        CAPTURE(budget);
        CAPTURE(max_num_seqs);
        CHECK(run({{max_num_seqs, budget, true}, 1000, 4, caching}, false) == expected);
        if (max_num_seqs == 64 && budget > 1) {
          CHECK(run({{max_num_seqs, budget, true}, 16, 4, caching}, true) == expected);
        }
      }
    }
    CHECK(run({{64, 64, false}, 16, 4, caching}, true) == expected);
    CHECK(run({{64, 64, false}, 1000, 4, caching}, false) == expected);
  }
}

TEST_CASE("every token is computed once, besides those that preemption threw away") {
  House house({{8, 16, true}, 20, 4, false});
  int64_t expected = 0;
  for (int32_t i = 0; i < 50; ++i) {
    const RequestSpec spec = {Tokens(1 + i % 17, i % kVocab), "", 0, 20 + i % 40, 0};
    expected += spec.length - 1;  // the last token is never computed
    house.add(spec);
  }
  house.drain();
  CHECK(house.scheduler().num_preemptions() > 0);
  CHECK(house.num_tokens() == expected + house.scheduler().num_recomputed_tokens());
}

}  // namespace
}  // namespace octavo
