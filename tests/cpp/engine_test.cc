// The engine through its public header, on tiny models with random weights.
#include "octavo/engine.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <thread>

#include "temp_dir.h"

namespace octavo {
namespace {

using test::TempDir;
using Ids = std::vector<int32_t>;

constexpr const char* kConfig = R"({
  "architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 48,
  "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
  "eos_token_id": 96, "torch_dtype": "float32"})";

// A random model: big logits would need trained weights, but the argmax of random ones is as sharp.
struct Model {
  explicit Model(EngineConfig engine_config = {}) : config(engine_config) {
    dir.write("config.json", kConfig);
    config.model = dir.path();
    config.load_format = "dummy";
    config.dtype = "float32";
    config.num_threads = 2;
  }
  TempDir dir;
  EngineConfig config;
};

SamplingParams greedy(int32_t max_tokens) {
  return {.temperature = 0, .max_tokens = max_tokens, .ignore_eos = true};
}

using Key = std::pair<RequestId, int32_t>;

struct Results {
  std::map<Key, Ids> tokens;
  std::map<Key, FinishReason> reasons;
};

void take(Engine& engine, Results& results) {
  for (const RequestOutput& output : engine.step()) {
    const Key key(output.request_id, output.sample_index);
    Ids& ids = results.tokens[key];
    ids.insert(ids.end(), output.new_token_ids.begin(), output.new_token_ids.end());
    if (output.finished()) results.reasons[key] = output.finish_reason;
  }
}

Results run(Engine& engine) {
  Results results;
  while (engine.has_unfinished_requests()) take(engine, results);
  return results;
}

Ids prompt_of(int32_t length, int32_t first) {
  Ids ids;
  for (int32_t i = 0; i < length; ++i) ids.push_back((first * 31 + i * 7) % 96);
  return ids;
}

TEST_CASE("a request alone and among others gives the same tokens") {
  for (const char* device : {"ref", "cpu"}) {
    CAPTURE(device);
    Model model({.device = device});
    Engine engine(model.config);
    std::vector<Ids> alone;
    for (int32_t i = 0; i < 8; ++i) {
      const RequestId id = engine.add_request(prompt_of(5 + 9 * i, i), greedy(20));
      alone.push_back(run(engine).tokens.at({id, 0}));
      CHECK(alone.back().size() == 20);
    }
    model.config.max_num_batched_tokens = 16;
    model.config.num_kv_blocks = 14;
    Engine small(model.config);
    std::vector<RequestId> ids;
    for (int32_t i = 0; i < 8; ++i) {
      ids.push_back(small.add_request(prompt_of(5 + 9 * i, i), greedy(20)));
    }
    Results together = run(small);
    for (size_t i = 0; i < ids.size(); ++i) CHECK(together.tokens.at({ids[i], 0}) == alone[i]);
    CHECK(small.stats().num_preemptions > 0);
    CHECK(small.stats().num_blocks_used == 0);
    CHECK(small.stats().num_requests_finished == 8);
  }
}

TEST_CASE("greedy tokens are the argmax of compute_logits, whatever the chunks") {
  Model model;
  Engine engine(model.config);
  const Ids prompt = prompt_of(40, 3);
  const RequestId id = engine.add_request(prompt, greedy(10));
  Ids all = prompt;
  const Results results = run(engine);
  const Ids& generated = results.tokens.at({id, 0});
  all.insert(all.end(), generated.begin(), generated.end());
  const std::vector<float> logits = engine.compute_logits(all);
  for (size_t i = prompt.size(); i < all.size(); ++i) {
    const auto row = logits.begin() + static_cast<int64_t>(i - 1) * 97;
    CHECK(std::max_element(row, row + 97) - row == all[i]);
  }
  model.config.max_num_seqs = 7;
  CHECK(Engine(model.config).compute_logits(all) == logits);
}

TEST_CASE("n samples share the prompt and end apart") {
  Model model;
  Engine engine(model.config);
  const SamplingParams params{
      .n = 5, .temperature = 1.5f, .seed = 11, .max_tokens = 8, .ignore_eos = true};
  const RequestId first = engine.add_request(prompt_of(33, 1), params);
  Results results = run(engine);
  REQUIRE(results.tokens.size() == 5);
  CHECK(results.tokens.at({first, 0}) != results.tokens.at({first, 1}));
  CHECK(engine.stats().num_blocks_used == 0);
  const RequestId second = engine.add_request(prompt_of(33, 1), params);
  engine.add_request(prompt_of(12, 5), greedy(12));
  Results again = run(engine);
  for (int32_t i = 0; i < 5; ++i) {
    CHECK(again.tokens.at({second, i}) == results.tokens.at({first, i}));
  }
}

TEST_CASE("a fork goes on from its parent's tokens and changes nothing for it") {
  for (const int32_t prompt_len : {15, 16, 17, 31, 32}) {
    CAPTURE(prompt_len);
    Model model;
    Engine engine(model.config);
    const Ids prompt = prompt_of(prompt_len, 2);
    const RequestId lone = engine.add_request(prompt, greedy(20));
    const Ids expected = run(engine).tokens.at({lone, 0});
    engine.reset_prefix_cache();

    const RequestId parent = engine.add_request(prompt, greedy(20));
    Results results;
    for (int i = 0; i < 5; ++i) take(engine, results);
    const RequestId child = engine.fork(parent, 0, greedy(15));
    const RequestId wild = engine.fork(parent, 0, {.temperature = 2, .seed = 5, .max_tokens = 15});
    while (engine.has_unfinished_requests()) take(engine, results);
    CHECK(results.tokens.at({parent, 0}) == expected);
    CHECK(results.tokens.at({child, 0}) == Ids(expected.begin() + 5, expected.end()));
    CHECK(results.tokens.at({wild, 0}) != results.tokens.at({child, 0}));
    CHECK(engine.stats().num_blocks_used == 0);
    CHECK_THROWS_AS(engine.fork(parent, 0, greedy(1)), InvalidArgument);
  }
}

TEST_CASE("abort gives every block back, at any time") {
  Model model({.max_num_batched_tokens = 16});
  Engine engine(model.config);
  const RequestId chunked = engine.add_request(prompt_of(100, 1), greedy(50));
  const RequestId other = engine.add_request(
      prompt_of(20, 2), {.n = 3, .seed = 1, .max_tokens = 30, .ignore_eos = true});
  engine.step();
  CHECK(engine.abort(chunked));
  CHECK_FALSE(engine.abort(chunked));
  Results results;
  for (int i = 0; i < 6; ++i) take(engine, results);
  CHECK(engine.abort_sample(other, 1));
  CHECK_FALSE(engine.abort_sample(other, 1));
  CHECK_FALSE(engine.abort_sample(other, 3));
  while (engine.has_unfinished_requests()) take(engine, results);
  CHECK(results.tokens.at({other, 0}).size() == 30);
  CHECK(results.tokens.at({other, 1}).size() < 30);
  CHECK(results.tokens.at({other, 2}).size() == 30);
  CHECK(engine.stats().num_blocks_used == 0);
  CHECK(engine.stats().num_requests_aborted == 1);
}

TEST_CASE("bad requests are refused, name what is wrong, and change nothing") {
  Model model({.num_kv_blocks = 8});
  Engine engine(model.config);
  const auto refusal = [&](const Ids& prompt, const SamplingParams& params) {
    try {
      engine.add_request(prompt, params);
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const RequestId good = engine.add_request(prompt_of(9, 1), greedy(5));
  CHECK(refusal({}, greedy(1)) == "The decoder prompt cannot be empty");
  CHECK(refusal({97}, greedy(1)).starts_with("Token id 97 is out of vocabulary"));
  CHECK(refusal({-1}, greedy(1)).starts_with("Token id -1 is out of vocabulary"));
  CHECK(refusal(Ids(256, 1), greedy(1)).starts_with("The decoder prompt (length 256) plus"));
  CHECK(refusal(Ids(257, 1), greedy(1)).starts_with("This model's maximum context length is 256"));
  CHECK(refusal(Ids(128, 1), greedy(2)).find("never fit in the KV cache") != std::string::npos);
  CHECK(refusal({1}, greedy(-1)).starts_with("max_tokens"));
  CHECK(engine.stats().num_waiting == 1);
  CHECK(run(engine).tokens.at({good, 0}).size() == 5);
  // The largest that fits does end, and without max_tokens the cache is the limit.
  const RequestId largest = engine.add_request(Ids(128, 1), greedy(1));
  CHECK(run(engine).tokens.at({largest, 0}).size() == 1);
  SamplingParams open = greedy(1);
  open.max_tokens.reset();
  const RequestId unbounded = engine.add_request(Ids(100, 1), open);
  CHECK(run(engine).tokens.at({unbounded, 0}).size() == 29);
}

TEST_CASE("log-probabilities come with each token and are bounded") {
  Model model({.max_logprobs = 5});
  Engine engine(model.config);
  SamplingParams params = greedy(4);
  params.logprobs = 5;
  engine.add_request(prompt_of(20, 1), params);
  engine.add_request(prompt_of(9, 2), greedy(4));
  while (engine.has_unfinished_requests()) {
    for (const RequestOutput& output : engine.step()) {
      REQUIRE(output.logprobs.size() == (output.request_id == 0 ? 1 : 0));
      if (output.logprobs.empty()) continue;
      const TokenLogprobs& position = output.logprobs.front();
      CHECK(position.token_ids.size() == 6);
      CHECK(position.token_ids[0] == output.new_token_ids[0]);
      CHECK(position.token_ids[1] == position.token_ids[0]);  // greedy: the best
      CHECK(position.ranks[0] == 1);
      CHECK(std::ranges::is_sorted(position.logprobs.begin() + 1, position.logprobs.end(),
                                   std::greater()));
    }
  }
  params.logprobs = 6;
  CHECK_THROWS_WITH_AS(engine.add_request(prompt_of(3, 1), params),
                       "Requested sample logprobs of 6, which is greater than max allowed: 5",
                       InvalidArgument);
}

TEST_CASE("an engine's configuration is checked") {
  Model model;
  const auto with = [&](auto change) {
    EngineConfig config = model.config;
    change(config);
    Engine engine(config);
  };
  CHECK_THROWS_AS(with([](EngineConfig& c) { c.max_num_seqs = 0; }), InvalidArgument);
  CHECK_THROWS_AS(with([](EngineConfig& c) { c.max_num_batched_tokens = -1; }), InvalidArgument);
  CHECK_THROWS_AS(with([](EngineConfig& c) { c.max_model_len = 257; }), InvalidArgument);
  CHECK_THROWS_AS(with([](EngineConfig& c) { c.dtype = "int3"; }), InvalidArgument);
  CHECK_THROWS_AS(with([](EngineConfig& c) { c.device = "tpu"; }), InvalidArgument);
  CHECK_THROWS_AS(with([](EngineConfig& c) { c.load_format = "pt"; }), InvalidArgument);
  CHECK_THROWS_AS(with([](EngineConfig& c) { c.max_logprobs = -2; }), InvalidArgument);
  CHECK_THROWS_AS(with([](EngineConfig& c) { c.logprobs_mode = "raw"; }), InvalidArgument);
  CHECK_THROWS_AS(with([](EngineConfig& c) { c.kv_cache_memory_bytes = 10; }), OutOfMemory);
  CHECK_THROWS_AS(with([](EngineConfig& c) { c.model = "/nowhere"; }), LoadError);
  CHECK_THROWS_AS(with([](EngineConfig& c) {
                    c.enable_chunked_prefill = false;
                    c.max_num_batched_tokens = 100;
                  }),
                  InvalidArgument);
}

TEST_CASE("calls from many threads are serialised") {
  Model model;
  Engine engine(model.config);
  std::vector<std::thread> threads;
  for (int32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int32_t i = 0; i < 20; ++i) {
        const RequestId id = engine.add_request(prompt_of(5 + i, t), greedy(3));
        engine.step();
        if (i % 3 == 0) engine.abort(id);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  run(engine);
  CHECK(engine.stats().num_blocks_used == 0);
  CHECK_FALSE(engine.has_unfinished_requests());
}

TEST_CASE("a forked child is told to make an engine of its own") {
  Model model;
  Engine engine(model.config);
  engine.add_request(prompt_of(3, 1), greedy(4));
  engine.step();
  const pid_t child = fork();
  if (child == 0) {
    int status = 1;
    try {
      engine.step();
    } catch (const Error& error) {
      status = std::string(error.what()).find("forked") != std::string::npos ? 0 : 2;
    }
    _exit(status);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(run(engine).tokens.size() == 1);
}

}  // namespace
}  // namespace octavo
