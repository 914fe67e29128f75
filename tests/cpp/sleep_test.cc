// Sleeping engines, through the public header: what they give back, what they keep, and that nobody
// can tell from the tokens.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "octavo/engine.h"
#include "tiny_engine.h"

namespace octavo {
namespace {

using test::prompt_of;
using Ids = std::vector<int32_t>;

constexpr const char* kSmall = R"({
  "architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 48,
  "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
  "eos_token_id": 96, "torch_dtype": "float32"})";

// 47 MiB of weights, and 2 MiB of KV cache a block.
constexpr const char* kLarge = R"({
  "architectures": ["LlamaForCausalLM"], "vocab_size": 12288, "hidden_size": 128,
  "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 16,
  "num_key_value_heads": 16, "head_dim": 256, "max_position_embeddings": 512,
  "rms_norm_eps": 1e-5, "eos_token_id": 96, "torch_dtype": "float32"})";

struct Model : test::TinyModel {
  explicit Model(const std::string& json, EngineConfig engine_config = {})
      : TinyModel(std::move(engine_config)) {
    dir.write("config.json", json);
  }
};

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

SamplingParams greedy(int32_t max_tokens) {
  return {.temperature = 0, .max_tokens = max_tokens, .ignore_eos = true};
}

// One sample's outputs, to be compared bit by bit.
struct Trace {
  Ids tokens;
  std::vector<float> logprobs;
  std::vector<float> prompt_logprobs;
  FinishReason reason = FinishReason::kNone;
  bool operator==(const Trace&) const = default;
};
using Traces = std::map<std::pair<RequestId, int32_t>, Trace>;

void take(Engine& engine, Traces& traces) {
  for (const RequestOutput& output : engine.step()) {
    Trace& trace = traces[{output.request_id, output.sample_index}];
    trace.tokens.insert(trace.tokens.end(), output.new_token_ids.begin(),
                        output.new_token_ids.end());
    const auto append = [](const std::vector<TokenLogprobs>& from, std::vector<float>& to) {
      for (const TokenLogprobs& each : from) {
        to.insert(to.end(), each.logprobs.begin(), each.logprobs.end());
      }
    };
    append(output.logprobs, trace.logprobs);
    append(output.prompt_logprobs, trace.prompt_logprobs);
    if (output.finished()) trace.reason = output.finish_reason;
  }
}

void drain(Engine& engine, Traces& traces) {
  while (engine.has_unfinished_requests()) take(engine, traces);
}

// Requests of every kind that carries state from step to step.
void add_workload(Engine& engine) {
  engine.add_request(prompt_of(20, 1), greedy(24));
  engine.add_request(prompt_of(90, 2), {.temperature = 1.2f,
                                        .top_p = 0.95f,
                                        .seed = 7,
                                        .max_tokens = 30,
                                        .ignore_eos = true,
                                        .logprobs = 3});
  engine.add_request(prompt_of(33, 3), {.temperature = 0,
                                        .max_tokens = 40,
                                        .ignore_eos = true,
                                        .presence_penalty = 0.7f,
                                        .frequency_penalty = 0.4f,
                                        .repetition_penalty = 1.3f});
  engine.add_request(prompt_of(18, 4), {.n = 4,
                                        .temperature = 1.5f,
                                        .max_tokens = 16,
                                        .ignore_eos = true,
                                        .repetition_penalty = 1.1f});
  engine.add_request(prompt_of(70, 5),
                     {.temperature = 0, .max_tokens = 5, .ignore_eos = true, .prompt_logprobs = 2});
  engine.add_request(prompt_of(33, 3), {.temperature = 0.8f, .max_tokens = 12});  // a shared prefix
}

TEST_CASE("no token shows that the engine slept") {
  for (const char* device : {"cpu", "ref"}) {
    Model model(kSmall, {.device = device, .max_num_batched_tokens = 40, .num_kv_blocks = 40});
    Engine awake(model.config);
    add_workload(awake);
    Traces expected;
    drain(awake, expected);
    REQUIRE(expected.size() == 9);
    for (const int32_t level : {1, 2}) {
      for (const int32_t period : {1, 5}) {  // steps between two sleeps
        CAPTURE(device);
        CAPTURE(level);
        CAPTURE(period);
        Engine engine(model.config);
        add_workload(engine);
        Traces traces;
        for (int32_t i = 0; engine.has_unfinished_requests(); ++i) {
          // Not for ever: every sleep throws away what was computed.
          if (i % period == 0 && i < 20 * period) {
            engine.sleep(level);
            CHECK(engine.stats().num_running == 0);
            CHECK(engine.stats().num_blocks_used == 0);
            engine.wake_up();
          }
          if (period == 1 && i < 20) {
            for (int step = 0; step < 3; ++step) take(engine, traces);
          }
          take(engine, traces);
        }
        CHECK(traces == expected);
        CHECK(engine.stats().num_preemptions > awake.stats().num_preemptions);
        CHECK(engine.stats().num_blocks_used == 0);
      }
    }
  }
}

TEST_CASE("levels and flags") {
  Model model(kSmall);
  Engine engine(model.config);
  CHECK(engine.sleep_level() == 0);
  engine.wake_up();  // awake: nothing
  CHECK_THROWS_AS(engine.sleep(0), InvalidArgument);
  CHECK_THROWS_AS(engine.sleep(3), InvalidArgument);
  CHECK_THROWS_AS(engine.sleep(-1), InvalidArgument);
  CHECK(engine.sleep_level() == 0);

  engine.sleep(1);
  CHECK(engine.sleep_level() == 1);
  engine.wake_up(true, false);  // the weights do not sleep
  CHECK(engine.sleep_level() == 1);
  engine.sleep(2);  // deeper
  CHECK(engine.sleep_level() == 2);
  engine.sleep(1);
  CHECK(engine.sleep_level() == 2);
  engine.wake_up(false, false);
  CHECK(engine.sleep_level() == 2);
  engine.wake_up(true, false);
  CHECK(engine.sleep_level() == 1);
  CHECK_THROWS_AS(engine.step(), Error);
  engine.wake_up(true, true);
  CHECK(engine.sleep_level() == 0);

  engine.sleep(2);
  engine.wake_up(false, true);  // the cache first
  CHECK(engine.sleep_level() == 2);
  CHECK_THROWS_AS(engine.step(), Error);
  engine.sleep(1);  // gives the cache back again
  CHECK(engine.sleep_level() == 2);
  engine.wake_up(true, false);
  CHECK(engine.sleep_level() == 1);
  engine.wake_up(false, true);
  CHECK(engine.sleep_level() == 0);

  engine.add_request(prompt_of(9, 1), greedy(3));
  Traces traces;
  drain(engine, traces);
  CHECK(traces.at({0, 0}).tokens.size() == 3);
}

TEST_CASE("a sleeping engine takes requests, forks and aborts, and computes nothing") {
  for (const int32_t level : {1, 2}) {
    CAPTURE(level);
    Model model(kSmall);
    Engine awake(model.config), engine(model.config);
    Traces expected, traces;
    const auto begin = [](Engine& each, Traces& out) {
      each.add_request(prompt_of(30, 1), greedy(20));
      each.add_request(prompt_of(30, 2), greedy(20));
      for (int i = 0; i < 5; ++i) take(each, out);
    };
    const auto change = [](Engine& each) {
      each.fork(0, 0, greedy(6));
      CHECK(each.abort(1));
      each.add_request(prompt_of(40, 3), greedy(10));
    };
    begin(awake, expected);
    begin(engine, traces);
    engine.sleep(level);
    change(awake);
    change(engine);
    CHECK_THROWS_WITH_AS(engine.step(), "engine: asleep; expected wake_up() first", Error);
    CHECK_THROWS_WITH_AS(engine.compute_logits(prompt_of(5, 1)),
                         "engine: asleep; expected wake_up() first", Error);
    CHECK_THROWS_AS(engine.add_request({}, greedy(1)), InvalidArgument);
    CHECK(engine.has_unfinished_requests());
    CHECK(engine.stats().num_waiting == 3);
    CHECK(engine.stats().num_running == 0);
    engine.reset_prefix_cache();
    CHECK(engine.model_info().vocab_size == 97);
    engine.wake_up();
    drain(awake, expected);
    drain(engine, traces);
    CHECK(traces == expected);
    CHECK(engine.compute_logits(prompt_of(50, 1)) == awake.compute_logits(prompt_of(50, 1)));
  }
}

TEST_CASE("the prefix cache is empty after a sleep") {
  Model model(kSmall);
  Engine engine(model.config);
  Traces traces;
  const auto hits = [&] {
    const int64_t before = engine.stats().prefix_cache_hits;
    engine.add_request(prompt_of(64, 1), greedy(4));
    drain(engine, traces);
    return engine.stats().prefix_cache_hits - before;
  };
  CHECK(hits() == 0);
  CHECK(hits() == 48);
  engine.sleep(1);
  engine.wake_up();
  CHECK(hits() == 0);
  CHECK(hits() == 48);
  CHECK(traces.at({2, 0}) == traces.at({0, 0}));
}

// Prompts beyond the original context are rotated by their length and salted by it: the engine must
// know that while it has no model.
TEST_CASE("prompts of dynamic rotary scaling are accepted asleep") {
  const std::string config =
      replaced(kSmall, "\"rms_norm_eps\"",
               R"("rope_scaling": {"rope_type": "dynamic", "factor": 4.0}, "rms_norm_eps")");
  Model model(config, {.max_model_len = 600, .max_num_seqs = 1, .num_kv_blocks = 100});
  Engine awake(model.config), engine(model.config);
  Traces expected, traces;
  const auto add = [](Engine& each) {
    for (const int32_t length : {300, 332, 300}) {
      each.add_request(prompt_of(length, 1), greedy(8));
    }
  };
  add(awake);
  drain(awake, expected);
  engine.sleep(2);
  add(engine);
  engine.wake_up();
  drain(engine, traces);
  CHECK(traces == expected);
  CHECK(awake.stats().prefix_cache_hits == 288);  // between prompts of one length
  CHECK(engine.stats().prefix_cache_hits == 288);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they keep freed memory

int64_t resident_bytes() {
  int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

int64_t mapped_bytes() {
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

// Fills the cache: its pages are the process's only when they have been written to.
void touch_cache(Engine& engine) {
  Traces ignored;
  for (int32_t i = 0; i < 8; ++i) engine.add_request(prompt_of(110, i), greedy(2));
  drain(engine, ignored);
}

TEST_CASE("the memory goes back to the system and comes again") {
  constexpr double kSlack = 0.1;  // of what is given back
  Model model(kLarge, {.max_num_batched_tokens = 512, .num_kv_blocks = 56});
  Engine engine(model.config);
  const auto kv = static_cast<double>(engine.model_info().kv_cache_bytes);
  const auto weights = static_cast<double>(engine.model_info().weight_bytes);
  const auto workspace = static_cast<double>(engine.model_info().workspace_bytes);
  CHECK(workspace > 0.3 * weights);
  for (int round = 0; round < 2; ++round) {
    CAPTURE(round);
    touch_cache(engine);
    const int64_t awake = resident_bytes();
    engine.sleep(1);
    const int64_t without_kv = resident_bytes();
    CHECK(static_cast<double>(awake - without_kv) >= (1 - kSlack) * kv);
    engine.sleep(2);
    const int64_t asleep = resident_bytes();
    CHECK(static_cast<double>(without_kv - asleep) >= (1 - kSlack) * (weights + workspace));
    engine.wake_up();
    touch_cache(engine);
    // No more than before: what loading needed is gone too.
    CHECK(static_cast<double>(resident_bytes() - awake) <= kSlack * (kv + weights));
  }
}

// The reference back end allocates from the heap, where small tensors lie between others.
TEST_CASE("what the heap held goes back too") {
  std::string config = replaced(kSmall, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 250");
  Model model(config, {.device = "ref", .max_num_batched_tokens = 16, .num_kv_blocks = 4});
  Engine engine(model.config);
  const int64_t awake = resident_bytes();
  engine.sleep(2);
  const auto weights = static_cast<double>(engine.model_info().weight_bytes);
  CHECK(weights > 15e6);
  CHECK(static_cast<double>(awake - resident_bytes()) >= 0.9 * weights);
}

// The process may map so much more, and no more than that, while this lives.
class MemoryLimit {
 public:
  explicit MemoryLimit(int64_t more) {
    getrlimit(RLIMIT_AS, &before_);
    rlimit limit = before_;
    limit.rlim_cur = static_cast<rlim_t>(mapped_bytes() + more);
    REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
  }
  ~MemoryLimit() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_;
};

TEST_CASE("without memory it goes on sleeping, and a later wake_up succeeds") {
  Model model(kLarge, {.max_num_batched_tokens = 128, .num_kv_blocks = 56});
  Engine awake(model.config), engine(model.config);
  Traces expected, traces;
  for (Engine* each : {&awake, &engine}) each->add_request(prompt_of(100, 1), greedy(10));
  drain(awake, expected);
  for (int i = 0; i < 3; ++i) take(engine, traces);

  engine.sleep(1);
  {
    const MemoryLimit limit(int64_t{100} << 20);  // of 112 MiB
    CHECK_THROWS_WITH_AS(engine.wake_up(), doctest::Contains("KV cache: 56 blocks"), OutOfMemory);
    CHECK(engine.sleep_level() == 1);
    CHECK_THROWS_AS(engine.wake_up(), OutOfMemory);
  }
  engine.wake_up();
  CHECK(engine.sleep_level() == 0);
  for (int i = 0; i < 3; ++i) take(engine, traces);

  engine.sleep(2);
  for (const int64_t mebibytes : {1, 10, 20}) {
    CAPTURE(mebibytes);
    const MemoryLimit limit(mebibytes << 20);
    CHECK_THROWS_AS(engine.wake_up(), OutOfMemory);
    CHECK(engine.sleep_level() == 2);
  }
  {
    const MemoryLimit limit(int64_t{60} << 20);  // for the weights alone
    CHECK_THROWS_AS(engine.wake_up(), OutOfMemory);
    CHECK(engine.sleep_level() == 1);
  }
  engine.wake_up();
  drain(engine, traces);
  CHECK(traces == expected);
}

#endif

TEST_CASE("another model is not woken up, the same one later is") {
  Model model(kSmall);
  Engine awake(model.config), engine(model.config);
  Traces expected, traces;
  for (Engine* each : {&awake, &engine}) each->add_request(prompt_of(30, 1), greedy(10));
  drain(awake, expected);
  for (int i = 0; i < 3; ++i) take(engine, traces);
  engine.sleep(2);
  const auto refusal = [&](const std::string& from, const std::string& to) {
    model.dir.write("config.json", replaced(kSmall, from, to));
    try {
      engine.wake_up();
    } catch (const LoadError& error) {
      CHECK(engine.sleep_level() == 2);
      return std::string(error.what());
    }
    return std::string("awake");
  };
  const auto says = [](const std::string& text, const char* part) {
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
    CHECK(text.find("expected the same model") != std::string::npos);
  };
  says(refusal("LlamaForCausalLM", "GPT2LMHeadModel"),
       "the architecture is GPT2LMHeadModel, and was LlamaForCausalLM");
  says(refusal("\"vocab_size\": 97", "\"vocab_size\": 98"), "vocab_size is 98, and was 97");
  says(refusal("\"hidden_size\": 48", "\"hidden_size\": 64"), "the hidden size is 64, and was 48");
  says(refusal("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"), "the number of layers");
  says(refusal("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4"), "KV heads is 4");
  says(refusal("\"intermediate_size\": 80", "\"intermediate_size\": 96"),
       "the number of parameters");
  says(refusal("\"max_position_embeddings\": 256", "\"max_position_embeddings\": 128"),
       "the context length is 128, and was 256");
  std::filesystem::remove(model.dir.file("config.json"));
  CHECK_THROWS_AS(engine.wake_up(), LoadError);
  CHECK(engine.sleep_level() == 2);
  CHECK_THROWS_AS(engine.step(), Error);

  model.dir.write("config.json", kSmall);
  engine.wake_up();
  drain(engine, traces);
  CHECK(traces == expected);
}

TEST_CASE("dtype and a context that no longer fits are other models too") {
  Model model(kSmall, {.max_model_len = 200});
  model.config.dtype = "auto";
  model.dir.write("config.json", replaced(kSmall, "float32", "bfloat16"));
  Engine engine(model.config);
  CHECK(engine.model_info().dtype == "bfloat16");
  engine.sleep(2);
  model.dir.write("config.json", kSmall);  // float32 files become float16
  CHECK_THROWS_WITH_AS(engine.wake_up(),
                       doctest::Contains("the dtype is float16, and was bfloat16"), LoadError);
  const std::string bfloat16 = replaced(kSmall, "float32", "bfloat16");
  model.dir.write("config.json", replaced(bfloat16, "256", "128"));
  CHECK_THROWS_WITH_AS(engine.wake_up(), doctest::Contains("max_model_len"), LoadError);
  CHECK(engine.sleep_level() == 2);
  model.dir.write("config.json", bfloat16);
  engine.wake_up();
  CHECK(engine.sleep_level() == 0);
}

TEST_CASE("sleep and wake_up wait for the step in progress") {
  Model model(kSmall);
  Engine engine(model.config);
  Engine awake(model.config);
  Traces expected, traces;
  for (Engine* each : {&awake, &engine}) add_workload(*each);
  drain(awake, expected);
  std::atomic<bool> done = false;
  std::thread sleeper([&] {
    for (int i = 0; i < 20; ++i) {
      engine.sleep(1 + i % 2);
      engine.wake_up(true, false);
      engine.wake_up(false, true);
    }
    done = true;
  });
  while (!done || engine.has_unfinished_requests()) {
    try {
      take(engine, traces);
    } catch (const Error& error) {
      CHECK(std::string(error.what()) == "engine: asleep; expected wake_up() first");
    }
  }
  sleeper.join();
  CHECK(traces == expected);
  CHECK(engine.stats().num_blocks_used == 0);
}

}  // namespace
}  // namespace octavo
