// Structured outputs in the engine: what comes out obeys, what surrounds it does not notice.
#include "octavo/structured_outputs.h"

#include <doctest/doctest.h>

#include <regex>
#include <set>
#include <string>

#include "tiny_engine.h"

namespace octavo {
namespace {

using test::Outputs;
using test::prompt_of;
using test::run_all;
using test::TinyModel;
using Ids = std::vector<int32_t>;

// Token i is the character ' ' + i; the last two have no text.
std::vector<std::string> vocabulary() {
  std::vector<std::string> tokens;
  for (int32_t i = 0; i < TinyModel::kVocab; ++i) {
    const bool special = i >= TinyModel::kEos - 1;
    tokens.emplace_back(special ? "" : std::string(1, static_cast<char>(' ' + i)));
  }
  return tokens;
}

std::string text_of(const Ids& ids) {
  std::string text;
  for (int32_t id : ids) text += vocabulary()[static_cast<size_t>(id)];
  return text;
}

struct Fixture {
  Fixture() : engine(model.config) { engine.set_vocabulary(vocabulary()); }
  TinyModel model;
  Engine engine;
};

SamplingParams sampled(StructuredOutputs structure, int32_t max_tokens, uint64_t seed = 1) {
  SamplingParams params{.temperature = 1, .seed = seed, .max_tokens = max_tokens};
  params.structured_outputs = std::move(structure);
  return params;
}

TEST_CASE_FIXTURE(Fixture, "samples match their expression, and end by the end token") {
  SamplingParams params =
      sampled({.kind = StructureKind::kRegex, .text = "[a-f]{3,5}-[0-9]{2}"}, 40);
  params.n = 16;
  const RequestId id = engine.add_request(prompt_of(7, 1), params);
  const Outputs outputs = run_all(engine);
  REQUIRE(outputs.size() == 16);
  std::set<std::string> different;
  for (const auto& [key, output] : outputs) {
    CHECK(key.first == id);
    CHECK(output.finish_reason == FinishReason::kStop);
    CHECK(output.new_token_ids.back() == TinyModel::kEos);
    CHECK(std::regex_match(text_of(output.new_token_ids), std::regex("[a-f]{3,5}-[0-9]{2}")));
    different.insert(text_of(output.new_token_ids));
  }
  CHECK(different.size() > 8);
  CHECK(engine.stats().num_blocks_used == 0);
}

TEST_CASE_FIXTURE(Fixture, "greedy takes the best of what is allowed") {
  SamplingParams params =
      sampled({.kind = StructureKind::kChoice, .choices = {"yes", "no", "{\"a\\\": 1}"}}, 40);
  params.temperature = 0;
  const RequestId id = engine.add_request(prompt_of(7, 2), params);
  const std::string text = text_of(run_all(engine).at({id, 0}).new_token_ids);
  CHECK((text == "yes" || text == "no" || text == "{\"a\\\": 1}"));
}

TEST_CASE_FIXTURE(Fixture, "neighbours keep their tokens and the bits of their logprobs") {
  SamplingParams plain{.temperature = 1, .seed = 4, .max_tokens = 30, .ignore_eos = true};
  plain.logprobs = 3;
  const RequestId alone = engine.add_request(prompt_of(20, 3), plain);
  std::vector<float> expected;
  Ids tokens;
  while (engine.has_unfinished_requests()) {
    for (const RequestOutput& output : engine.step()) {
      tokens.push_back(output.new_token_ids.front());
      expected.push_back(output.logprobs.front().logprobs.front());
    }
  }
  const RequestId neighbour = engine.add_request(prompt_of(20, 3), plain);
  engine.add_request(prompt_of(5, 3), sampled({.kind = StructureKind::kJsonObject}, 25));
  Ids again;
  std::vector<float> logprobs;
  while (engine.has_unfinished_requests()) {
    for (const RequestOutput& output : engine.step()) {
      if (output.request_id != neighbour) continue;
      again.push_back(output.new_token_ids.front());
      logprobs.push_back(output.logprobs.front().logprobs.front());
    }
  }
  CHECK(alone != neighbour);
  CHECK(again == tokens);
  CHECK(logprobs == expected);
}

TEST_CASE_FIXTURE(Fixture, "the end token ends the structure also with ignore_eos and min_tokens") {
  SamplingParams params = sampled({.kind = StructureKind::kRegex, .text = "ab"}, 40);
  params.ignore_eos = true;
  params.min_tokens = 10;
  const RequestId id = engine.add_request(prompt_of(7, 1), params);
  const RequestOutput output = run_all(engine).at({id, 0});
  CHECK(text_of(output.new_token_ids) == "ab");
  CHECK(output.finish_reason == FinishReason::kStop);
}

TEST_CASE_FIXTURE(Fixture, "min_tokens holds where the structure can go on") {
  SamplingParams params = sampled({.kind = StructureKind::kRegex, .text = "a*"}, 40);
  params.min_tokens = 10;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    params.seed = seed;
    const RequestId id = engine.add_request(prompt_of(7, 1), params);
    CHECK(text_of(run_all(engine).at({id, 0}).new_token_ids).size() >= 10);
  }
}

TEST_CASE_FIXTURE(Fixture, "a stop id with a text belongs to the structure and ends the request") {
  SamplingParams params = sampled({.kind = StructureKind::kRegex, .text = "a{3}b{3}"}, 40);
  params.stop_token_ids = {'b' - ' '};
  const RequestId id = engine.add_request(prompt_of(7, 1), params);
  const RequestOutput output = run_all(engine).at({id, 0});
  CHECK(text_of(output.new_token_ids) == "aaab");
  CHECK(output.stop_token_id == 'b' - ' ');
}

TEST_CASE_FIXTURE(Fixture, "rules that leave nothing end the request with an error that says so") {
  SamplingParams params = sampled({.kind = StructureKind::kRegex, .text = "abc"}, 40);
  params.bad_words = {{'b' - ' '}};
  const RequestId id = engine.add_request(prompt_of(7, 1), params);
  const RequestOutput output = run_all(engine).at({id, 0});
  CHECK(output.finish_reason == FinishReason::kError);
  CHECK(output.error.starts_with("structured_outputs: no token is left"));
  CHECK(text_of(output.new_token_ids) == "a");
}

TEST_CASE_FIXTURE(Fixture, "what is wrong is refused at submission, and nothing is left behind") {
  const auto refused = [&](const StructuredOutputs& structure) {
    CHECK_THROWS_AS(engine.add_request(prompt_of(3, 1), sampled(structure, 5)), InvalidArgument);
    CHECK_THROWS_AS(engine.validate(prompt_of(3, 1), sampled(structure, 5)), InvalidArgument);
  };
  refused({.kind = StructureKind::kJsonSchema, .text = "{\"type\": "});
  refused({.kind = StructureKind::kRegex, .text = "a(b"});
  refused({.kind = StructureKind::kChoice});
  refused({.kind = StructureKind::kGrammar, .text = "root ::= missing"});
  CHECK_FALSE(engine.has_unfinished_requests());
  CHECK_THROWS_AS(engine.set_vocabulary(vocabulary()), InvalidArgument);
}

TEST_CASE("without a vocabulary, structures are refused") {
  TinyModel model;
  Engine engine(model.config);
  CHECK_FALSE(engine.has_vocabulary());
  CHECK_THROWS_AS(
      engine.add_request(prompt_of(3, 1), sampled({.kind = StructureKind::kJsonObject}, 5)),
      InvalidArgument);
}

TEST_CASE_FIXTURE(Fixture, "aborting while the grammar is compiled, and while it is used") {
  const SamplingParams params = sampled({.kind = StructureKind::kRegex, .text = "[a-z]{100}"}, 60);
  for (int32_t steps = 0; steps < 12; ++steps) {
    const RequestId id = engine.add_request(prompt_of(30, steps), params);
    for (int32_t i = 0; i < steps; ++i) engine.step();
    CHECK(engine.abort(id));
    CHECK(run_all(engine).empty());
    CHECK(engine.stats().num_blocks_used == 0);
  }
}

TEST_CASE("a structure survives preemption") {
  const auto texts = [](int64_t blocks) {
    TinyModel model({.num_kv_blocks = blocks});
    Engine engine(model.config);
    engine.set_vocabulary(vocabulary());
    for (int32_t i = 0; i < 6; ++i) {
      engine.add_request(prompt_of(20, i),
                         sampled({.kind = StructureKind::kRegex, .text = "[a-z ]{50,60}"}, 70, 9));
    }
    std::vector<std::string> result;
    for (const auto& [key, output] : run_all(engine))
      result.push_back(text_of(output.new_token_ids));
    return std::pair(result, engine.stats().num_preemptions);
  };
  const auto [roomy, none] = texts(100);
  const auto [tight, some] = texts(9);
  CHECK(none == 0);
  CHECK(some > 0);
  CHECK(tight == roomy);
  for (const std::string& text : tight) CHECK(std::regex_match(text, std::regex("[a-z ]{50,60}")));
}

}  // namespace
}  // namespace octavo
