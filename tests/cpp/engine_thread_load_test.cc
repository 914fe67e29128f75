// The engine's thread on a real engine, a tiny model with random weights, under many callers.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "octavo/engine_thread.h"
#include "temp_dir.h"

namespace octavo {
namespace {

using namespace std::chrono_literals;
using test::TempDir;
using Ids = std::vector<int32_t>;

constexpr auto kForever = std::chrono::milliseconds::max();
constexpr const char* kConfig = R"({
  "architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 32,
  "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
  "num_key_value_heads": 1, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
  "eos_token_id": 96, "torch_dtype": "float32"})";

struct Model {
  std::shared_ptr<Engine> engine(EngineConfig config = {}) {
    dir.write("config.json", kConfig);
    config.model = dir.path();
    config.load_format = "dummy";
    config.dtype = "float32";
    config.num_threads = 1;
    return std::make_shared<Engine>(config);
  }
  TempDir dir;
};

Ids prompt_of(int32_t length, int32_t first) {
  Ids ids;
  for (int32_t i = 0; i < length; ++i) ids.push_back((first * 31 + i * 7) % 96);
  return ids;
}

SamplingParams greedy(int32_t max_tokens) {
  return {.temperature = 0, .max_tokens = max_tokens, .ignore_eos = true};
}

// Collects tokens by request until `count` have finished.
std::map<RequestId, Ids> collect(OutputQueue& queue, int count) {
  std::map<RequestId, Ids> tokens;
  while (count > 0) {
    for (const RequestOutput& output : queue.take(kForever)) {
      Ids& ids = tokens[output.request_id];
      ids.insert(ids.end(), output.new_token_ids.begin(), output.new_token_ids.end());
      count -= output.request_finished ? 1 : 0;
    }
  }
  return tokens;
}

Ids alone(Engine& engine, const Ids& prompt, int32_t max_tokens) {
  engine.add_request(prompt, greedy(max_tokens));
  Ids ids;
  while (engine.has_unfinished_requests()) {
    for (const RequestOutput& output : engine.step()) ids.push_back(output.new_token_ids.at(0));
  }
  return ids;
}

TEST_CASE("callers that share the thread get what each gets alone") {
  Model model;
  const auto engine = model.engine({.max_num_batched_tokens = 48, .num_kv_blocks = 24});
  std::vector<Ids> expected;
  for (int32_t i = 0; i < 12; ++i) expected.push_back(alone(*engine, prompt_of(3 + 4 * i, i), 30));
  EngineThread thread(engine);
  std::vector<std::thread> callers;
  std::atomic<int> equal = 0;
  for (int32_t caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      auto queue = std::make_shared<OutputQueue>();
      std::map<RequestId, int32_t> mine;
      for (int32_t i = caller; i < 12; i += 4) {
        mine[thread.add_request(prompt_of(3 + 4 * i, i), greedy(30), queue)] = i;
      }
      for (const auto& [id, ids] : collect(*queue, 3)) {
        equal += ids == expected[static_cast<size_t>(mine.at(id))] ? 1 : 0;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(equal == 12);
}

// One caller of the storm: adds, aborts and takes at random; its witnesses must come whole.
void storm(EngineThread& thread, uint32_t seed, std::atomic<int>& witnesses) {
  std::mt19937 random(seed);
  const auto below = [&](uint32_t limit) { return static_cast<int32_t>(random() % limit); };
  auto queue = std::make_shared<OutputQueue>();
  std::vector<RequestId> in_flight;
  for (int round = 0; round < 1500; ++round) {
    SamplingParams params{.n = 1 + below(3), .seed = 1, .max_tokens = 1 + below(30)};
    params.ignore_eos = true;
    in_flight.push_back(thread.add_request(prompt_of(1 + below(40), below(9)), params, queue));
    while (in_flight.size() > 12 || (!in_flight.empty() && below(3) == 0)) {
      std::swap(in_flight[static_cast<size_t>(below(in_flight.size()))], in_flight.back());
      const int32_t way = below(4);
      for (int32_t i = 0; way == 0 && i < 3; ++i) thread.abort_sample(in_flight.back(), i);
      thread.abort(in_flight.back());
      in_flight.pop_back();
    }
    if (below(50) == 0) thread.run_between_steps([](Engine& engine) { engine.stats(); });
    if (below(20) == 0) {
      auto own = std::make_shared<OutputQueue>();
      thread.add_request(prompt_of(20, 3), greedy(10), own);
      witnesses += collect(*own, 1).begin()->second.size() == 10 ? 1 : -1000;
    }
    queue->take(0ms);
  }
  for (RequestId id : in_flight) thread.abort(id);
}

TEST_CASE("thousands of requests come and go from four threads, and every block comes back") {
  Model model;
  const auto engine =
      model.engine({.max_num_seqs = 16, .max_num_batched_tokens = 64, .num_kv_blocks = 32});
  EngineThread thread(engine);
  std::atomic<int> witnesses = 0;
  std::vector<std::thread> callers;
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    callers.emplace_back([&, seed] { storm(thread, seed, witnesses); });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(witnesses > 100);
  CHECK(thread.num_unfinished() == 0);
  thread.run_between_steps([](Engine&) {});
  CHECK_FALSE(engine->has_unfinished_requests());
  CHECK(thread.stats().num_blocks_used == 0);
  CHECK(thread.stats().num_running == 0);
  CHECK(thread.stats().num_requests_aborted > 1000);
}

TEST_CASE("an event loop waits for the descriptor of a queue") {
  Model model;
  EngineThread thread(model.engine());
  OutputQueue* queue = nullptr;
  auto shared = std::make_shared<OutputQueue>();
  queue = shared.get();
  thread.add_request(prompt_of(9, 1), greedy(40), shared);
  size_t taken = 0;
  for (bool finished = false; !finished;) {
    pollfd poll_fd{.fd = queue->fd(), .events = POLLIN};
    REQUIRE(poll(&poll_fd, 1, -1) == 1);
    const std::vector<RequestOutput> outputs = queue->take(0ms);
    CHECK_FALSE(outputs.empty());
    taken += outputs.size();
    finished = outputs.back().request_finished;
  }
  CHECK(taken == 40);
}

TEST_CASE("destroyed with requests in flight, again and again") {
  Model model;
  const auto engine = model.engine();
  auto queue = std::make_shared<OutputQueue>();
  for (int round = 0; round < 50; ++round) {
    EngineThread thread(engine);
    for (int32_t i = 0; i < 4; ++i) {
      thread.add_request(prompt_of(30, i), {.n = 2, .ignore_eos = true}, queue);
    }
    if (round % 2 == 0) queue->take(kForever);
  }
  CHECK_FALSE(engine->has_unfinished_requests());
  CHECK(engine->stats().num_blocks_used == 0);
  CHECK(engine.use_count() == 1);
  CHECK(alone(*engine, prompt_of(5, 1), 3).size() == 3);
}

}  // namespace
}  // namespace octavo
