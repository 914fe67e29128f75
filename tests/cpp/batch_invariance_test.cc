// The same request gives the same tokens, and log-probabilities of the same bits, whatever runs
// beside it: one reference, each request alone on one thread, against every way to run them
// together. A build with OCTAVO_SPLIT_SUM breaks the rule, and must fail here.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "tiny_engine.h"

namespace octavo::test {
namespace {

constexpr size_t kRequests = 64;
constexpr int32_t kShared = 40;  // tokens that every third prompt begins with

struct Kind {
  const char* dtype;
  const char* quantization;
  const char* kv_cache_dtype;
};
constexpr Kind kKinds[] = {{"float32", "none", "auto"},
                           {"bfloat16", "none", "auto"},
                           {"float16", "none", "float32"},
                           {"bfloat16", "int8", "auto"},
                           {"bfloat16", "none", "int8"}};

// A model whose matrices are no multiples of a panel or a tile, and a way to run it.
class Setup {
 public:
  explicit Setup(const Kind& kind) {
    dir_.write("config.json", R"({
      "architectures": ["LlamaForCausalLM"], "vocab_size": 301, "hidden_size": 96,
      "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 6,
      "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256,
      "rms_norm_eps": 1e-5, "torch_dtype": "float32", "initializer_range": 0.2})");
    config.model = dir_.path();
    config.load_format = "dummy";
    config.dtype = kind.dtype;
    config.quantization = kind.quantization;
    config.kv_cache_dtype = kind.kv_cache_dtype;
    config.num_threads = 2;
    config.num_kv_blocks = 1024;
    config.enable_prefix_caching = false;
  }
  EngineConfig config;

 private:
  TempDir dir_;
};

std::vector<int32_t> prompt(size_t index) {
  std::vector<int32_t> ids;
  if (index % 3 == 0) ids = prompt_of(kShared, 5);
  const auto length = static_cast<int32_t>(1 + index * 29 % 83);
  for (int32_t id : prompt_of(length, static_cast<int32_t>(index) + 7)) ids.push_back(id + 200);
  return ids;
}

SamplingParams params_of(size_t index) {
  SamplingParams params;
  params.temperature = index % 2 == 0 ? 0.0f : 1.0f;
  params.top_p = index % 4 == 1 ? 0.9f : 1.0f;
  params.seed = 1000 + index;
  params.max_tokens = static_cast<int32_t>(2 + index * 5 % 13);
  params.ignore_eos = true;
  params.logprobs = 3;
  return params;
}

// Tokens, and the bits of their log-probabilities and of those beside them.
struct Trace {
  std::vector<int32_t> tokens, ids;
  std::vector<uint32_t> bits;
  bool operator==(const Trace&) const = default;
};

void append(const RequestOutput& output, Trace& trace) {
  trace.tokens.insert(trace.tokens.end(), output.new_token_ids.begin(), output.new_token_ids.end());
  for (const TokenLogprobs& position : output.logprobs) {
    trace.ids.insert(trace.ids.end(), position.token_ids.begin(), position.token_ids.end());
    for (float value : position.logprobs) trace.bits.push_back(std::bit_cast<uint32_t>(value));
  }
}

// The requests in this order; `every`: steps between two arrivals, 0: all at once.
std::vector<Trace> run(Engine& engine, const std::vector<size_t>& order, int every = 0) {
  std::map<RequestId, size_t> index_of;
  std::vector<Trace> traces(kRequests);
  size_t next = 0;
  for (int step = 0; next < order.size() || engine.has_unfinished_requests(); ++step) {
    while (next < order.size() && (every == 0 || step % every == 0)) {
      const size_t index = order[next++];
      index_of[engine.add_request(prompt(index), params_of(index))] = index;
      if (every != 0) break;
    }
    for (const RequestOutput& output : engine.step()) {
      append(output, traces[index_of.at(output.request_id)]);
    }
  }
  return traces;
}

std::vector<size_t> first_requests(size_t count) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  return order;
}

void check_same(const std::string& what, const std::vector<Trace>& actual,
                const std::vector<Trace>& expected, const std::vector<size_t>& order) {
  size_t tokens = 0, bits = 0;
  for (size_t index : order) {
    tokens += actual[index].tokens != expected[index].tokens;
    bits += !(actual[index] == expected[index]);
  }
  CHECK_MESSAGE(tokens == 0, what, ": the tokens of ", tokens, " requests differ");
  CHECK_MESSAGE(bits == 0, what, ": the log-probabilities of ", bits, " requests differ");
}

std::vector<Trace> run_alone(EngineConfig config) {
  config.num_threads = 1;
  Engine engine(config);
  std::vector<Trace> traces(kRequests);
  for (size_t index = 0; index < kRequests; ++index) traces[index] = run(engine, {index})[index];
  return traces;
}

// All that may be beside a request, in `name`'s engine.
void check_every_way(const std::string& name, const EngineConfig& config) {
  const std::vector<Trace> alone = run_alone(config);
  for (size_t index = 0; index < kRequests; ++index) {
    REQUIRE(alone[index].tokens.size() == static_cast<size_t>(*params_of(index).max_tokens));
    REQUIRE(alone[index].bits.size() >= 4 * alone[index].tokens.size());
  }
  const auto with = [&](const std::string& what, const auto& change, int every = 0,
                        std::vector<size_t> order = first_requests(kRequests)) {
    EngineConfig changed = config;
    change(changed);
    Engine engine(changed);
    check_same(name + what, run(engine, order, every), alone, order);
    return engine.stats();
  };
  for (size_t batch : {1, 2, 3, 5, 17, 64}) {
    with(" batch of " + std::to_string(batch), [](EngineConfig&) {}, 0, first_requests(batch));
  }
  std::vector<size_t> reversed = first_requests(kRequests);
  std::ranges::reverse(reversed);
  with(" in reverse", [](EngineConfig&) {}, 0, reversed);
  with(" late joiners", [](EngineConfig&) {}, 2);
  with(" one thread", [](EngineConfig& c) { c.num_threads = 1; });
  for (int32_t budget : {1, 7, 16, 33}) {
    with(" chunks of " + std::to_string(budget),
         [&](EngineConfig& c) { c.max_num_batched_tokens = budget; });
  }
  const EngineStats pressed = with(" preemption", [](EngineConfig& c) {
    c.num_kv_blocks = 24;
    c.max_num_batched_tokens = 64;
  });
  CHECK(pressed.num_preemptions > 0);
  EngineConfig cached = config;
  cached.enable_prefix_caching = true;
  Engine engine(cached);
  for (const char* what : {" prefix cache filling", " prefix hits"}) {
    check_same(name + what, run(engine, first_requests(kRequests)), alone,
               first_requests(kRequests));
  }
  CHECK(engine.stats().prefix_cache_hits > 0);
}

TEST_CASE("a request's bits do not depend on what runs beside it") {
  for (const std::string& isa : cpu_isas()) {
    setenv("OCTAVO_ISA", isa.c_str(), 1);
    for (const Kind& kind : kKinds) {
      const Setup setup(kind);
      check_every_way(isa + " " + kind.dtype + " " + kind.quantization + " weights, " +
                          kind.kv_cache_dtype + " cache,",
                      setup.config);
    }
  }
  unsetenv("OCTAVO_ISA");
}

}  // namespace
}  // namespace octavo::test
