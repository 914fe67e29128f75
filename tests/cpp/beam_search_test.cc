// Beam search in the engine. Its results are compared with transformers and with exhaustive search
// in tests/python; here is what surrounds them.
#include "octavo/beam_search.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <regex>

#include "octavo/engine_thread.h"
#include "tiny_engine.h"

namespace octavo {
namespace {

using test::prompt_of;
using test::run_all;
using test::TinyModel;
using Ids = std::vector<int32_t>;

BeamSearchParams search_of(int32_t width, int32_t max_tokens) {
  return {.beam_width = width, .max_tokens = max_tokens, .tokens = {.ignore_eos = true}};
}

std::vector<Beam> beams_of(Engine& engine, const Ids& prompt, const BeamSearchParams& params) {
  const RequestId id = engine.add_beam_search(prompt, params);
  return run_all(engine).at({id, 0}).beams;
}

// Token i is the character ' ' + i; the last two have no text.
std::vector<std::string> vocabulary() {
  std::vector<std::string> tokens;
  for (int32_t i = 0; i < TinyModel::kVocab; ++i) {
    tokens.emplace_back(i >= TinyModel::kEos - 1 ? "" : std::string(1, static_cast<char>(' ' + i)));
  }
  return tokens;
}

std::string text_of(const Ids& ids) {
  std::string text;
  for (int32_t id : ids) text += vocabulary()[static_cast<size_t>(id)];
  return text;
}

TEST_CASE("width 1 is greedy, and its score is the mean of the log-probabilities") {
  for (const char* device : {"ref", "cpu"}) {
    TinyModel model({.device = device});
    Engine engine(model.config);
    SamplingParams greedy{.temperature = 0, .max_tokens = 20, .ignore_eos = true};
    greedy.logprobs = 0;
    const RequestId id = engine.add_request(prompt_of(9, 1), greedy);
    double sum = 0;
    Ids tokens;
    while (engine.has_unfinished_requests()) {
      for (const RequestOutput& output : engine.step()) {
        CHECK(output.request_id == id);
        tokens.push_back(output.new_token_ids.front());
        sum += output.logprobs.front().logprobs.front();
      }
    }
    const std::vector<Beam> beams = beams_of(engine, prompt_of(9, 1), search_of(1, 20));
    REQUIRE(beams.size() == 1);
    CHECK(beams[0].token_ids == tokens);
    CHECK(beams[0].logprob == doctest::Approx(sum));
    CHECK(beams[0].score == doctest::Approx(sum / 20));
    CHECK(beams[0].finish_reason == FinishReason::kLength);
  }
}

TEST_CASE("beams are different, in the order of their scores, and their logprobs add up") {
  TinyModel model;
  Engine engine(model.config);
  const std::vector<Beam> beams = beams_of(engine, prompt_of(30, 2), search_of(8, 12));
  REQUIRE(beams.size() == 8);
  for (size_t i = 0; i < beams.size(); ++i) {
    const Beam& beam = beams[i];
    if (i > 0) CHECK(beam.score <= beams[i - 1].score);
    for (size_t j = 0; j < i; ++j) CHECK(beam.token_ids != beams[j].token_ids);
    REQUIRE(beam.logprobs.size() == 12);
    double sum = 0;
    for (size_t t = 0; t < 12; ++t) {
      const TokenLogprobs& step = *beam.logprobs[t];
      CHECK(step.token_ids.size() == 16);
      CHECK(std::ranges::is_sorted(step.logprobs, std::greater()));
      const auto found = std::ranges::find(step.token_ids, beam.token_ids[t]);
      REQUIRE(found != step.token_ids.end());
      sum += step.logprobs[static_cast<size_t>(found - step.token_ids.begin())];
    }
    CHECK(beam.logprob == doctest::Approx(sum));
  }
  CHECK(engine.stats().num_blocks_used == 0);
}

TEST_CASE("among others, in few blocks and after preemption, beams stay the same to the bit") {
  const auto all_beams = [](int64_t blocks, bool together, int64_t* preemptions) {
    TinyModel model({.num_kv_blocks = blocks, .enable_prefix_caching = together});
    Engine engine(model.config);
    std::vector<std::vector<Beam>> result;
    std::vector<RequestId> ids;
    for (int32_t i = 0; i < 4; ++i) {
      ids.push_back(engine.add_beam_search(prompt_of(20 + i, i), search_of(3, 25)));
      if (together) {
        engine.add_request(prompt_of(15, i),
                           {.temperature = 1, .seed = 1, .max_tokens = 40, .ignore_eos = true});
      } else {
        result.push_back(run_all(engine).at({ids.back(), 0}).beams);
      }
    }
    if (together) {
      const test::Outputs outputs = run_all(engine);
      for (RequestId id : ids) result.push_back(outputs.at({id, 0}).beams);
    }
    *preemptions = engine.stats().num_preemptions;
    CHECK(engine.stats().num_blocks_used == 0);
    return result;
  };
  int64_t none = 0, some = 0;
  const auto alone = all_beams(200, false, &none);
  const auto roomy = all_beams(200, true, &none);
  CHECK(none == 0);
  const auto tight = all_beams(12, true, &some);
  CHECK(some > 0);
  for (const auto* others : {&roomy, &tight}) {
    for (size_t i = 0; i < alone.size(); ++i) {
      REQUIRE((*others)[i].size() == alone[i].size());
      for (size_t b = 0; b < alone[i].size(); ++b) {
        CHECK((*others)[i][b].token_ids == alone[i][b].token_ids);
        CHECK((*others)[i][b].logprob == alone[i][b].logprob);
      }
    }
  }
}

TEST_CASE("a search takes few blocks, and gives them back when it is aborted") {
  TinyModel model({.num_kv_blocks = 100, .enable_prefix_caching = false});
  Engine engine(model.config);
  const RequestId id = engine.add_beam_search(prompt_of(70, 4), search_of(4, 60));
  int64_t peak = 0;
  for (int32_t i = 0; i < 50; ++i) {
    engine.step();
    peak = std::max(peak, engine.stats().num_blocks_used);
  }
  CHECK(peak <= 5 + 4 * (4 + 1));  // ceil(70/16) + 4 x (ceil(60/16) + 1)
  CHECK_FALSE(engine.abort_sample(id, 0));
  CHECK(engine.abort(id));
  CHECK(engine.stats().num_blocks_used == 0);
}

TEST_CASE("beams obey stop texts, structures and bans") {
  TinyModel model;
  Engine engine(model.config);
  BeamSearchParams params = search_of(4, 30);
  params.stop = {"ab"};
  CHECK_THROWS_AS(engine.add_beam_search(prompt_of(5, 1), params), InvalidArgument);
  engine.set_vocabulary(vocabulary());
  params.tokens.allowed_token_ids = {'a' - ' ', 'b' - ' '};
  bool stopped = false;
  for (const Beam& beam : beams_of(engine, prompt_of(5, 1), params)) {
    const std::string text = text_of(beam.token_ids);
    CHECK(text.find("ab") == (beam.stop_index == 0 ? text.size() - 2 : std::string::npos));
    stopped = stopped || beam.finish_reason == FinishReason::kStop;
  }
  CHECK(stopped);
  params = search_of(4, 30);
  params.tokens.structured_outputs =
      StructuredOutputs{.kind = StructureKind::kRegex, .text = "[a-c]{2,4}[0-9]"};
  const std::vector<Beam> structured = beams_of(engine, prompt_of(5, 1), params);
  CHECK(structured.size() == 4);
  for (const Beam& beam : structured) {
    CHECK(beam.finish_reason == FinishReason::kStop);
    CHECK(std::regex_match(text_of(beam.token_ids), std::regex("[a-c]{2,4}[0-9]")));
  }
}

TEST_CASE("groups begin with different tokens where diversity is asked for") {
  TinyModel model;
  Engine engine(model.config);
  BeamSearchParams params = search_of(6, 8);
  params.num_groups = 3;
  params.diversity_penalty = 100;
  std::vector<int32_t> firsts;
  for (const Beam& beam : beams_of(engine, prompt_of(5, 1), params)) {
    firsts.push_back(beam.token_ids.front());
  }
  CHECK(firsts.size() == 6);
  std::ranges::sort(firsts);
  firsts.erase(std::unique(firsts.begin(), firsts.end()), firsts.end());
  CHECK(firsts.size() >= 3);
}

TEST_CASE("a stream brings the best beam of each step, through the thread too") {
  TinyModel model;
  EngineThread thread(std::make_shared<Engine>(model.config));
  const auto queue = std::make_shared<OutputQueue>();
  BeamSearchParams params = search_of(3, 10);
  params.stream = true;
  const RequestId id = thread.add_beam_search(prompt_of(5, 1), params, queue);
  size_t steps = 0;
  bool finished = false;
  while (!finished) {
    for (const RequestOutput& output : queue->take(std::chrono::milliseconds(1000))) {
      CHECK(output.request_id == id);
      finished = output.request_finished;
      if (finished) {
        CHECK(output.beams.size() == 3);
      } else {
        REQUIRE(output.beams.size() == 1);
        CHECK(output.beams[0].token_ids.size() == ++steps);
      }
    }
  }
  CHECK(steps == 9);
  CHECK_THROWS_AS(thread.add_beam_search(prompt_of(5, 1), search_of(0, 3), queue), InvalidArgument);
}

TEST_CASE("what is out of range is refused by its name") {
  TinyModel model({.max_num_seqs = 8, .num_kv_blocks = 20});
  Engine engine(model.config);
  const auto refused = [&](const char* field, BeamSearchParams params) {
    try {
      engine.add_beam_search(prompt_of(5, 1), params);
      FAIL(field, " was accepted");
    } catch (const InvalidArgument& error) {
      CHECK_MESSAGE(std::string(error.what()).find(field) != std::string::npos, error.what());
    }
  };
  refused("beam_width", search_of(0, 4));
  refused("beam_width", search_of(16385, 4));
  refused("beam_width", search_of(9, 4));    // max_num_seqs
  refused("beam_width", search_of(8, 100));  // blocks
  refused("max_tokens", search_of(2, 0));
  refused("length_penalty", {.beam_width = 2, .length_penalty = NAN});
  refused("num_return_sequences", {.beam_width = 2, .num_return_sequences = 3});
  refused("num_groups", {.beam_width = 3, .num_groups = 2});
  refused("diversity_penalty", {.beam_width = 2, .diversity_penalty = 1});
  refused("stop", {.beam_width = 2, .stop = {""}});
  refused("logprobs", {.beam_width = 2, .tokens = {.logprobs = 2}});
  refused("min_tokens", {.beam_width = 2, .max_tokens = 4, .tokens = {.min_tokens = 5}});
  CHECK_FALSE(engine.has_unfinished_requests());
}

}  // namespace
}  // namespace octavo
