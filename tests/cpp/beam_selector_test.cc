#include "engine/beam_selector.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

namespace octavo {
namespace {

using Ids = std::vector<int32_t>;

constexpr int32_t kVocab = 6, kEnd = 0, kMaxTokens = 4;

// A language of six tokens: a distribution for each beginning.
std::vector<double> logprobs_after(const Ids& prefix, uint32_t seed) {
  std::seed_seq sequence(prefix.begin(), prefix.end());
  std::mt19937 random(sequence);
  random.discard(seed % 1000);
  std::vector<double> logits, result;
  double total = 0;
  for (int32_t i = 0; i < kVocab; ++i) {
    logits.push_back(std::normal_distribution<double>(0, 1.5)(random) + 0.01 * seed);
    total += std::exp(logits.back());
  }
  for (double logit : logits) result.push_back(logit - std::log(total));
  return result;
}

struct Finished {
  Ids tokens;
  double score;
};

// Searches the language with a selector; the finished ones, best first, at most `width`.
std::vector<Finished> search(const BeamSelector::Config& config, uint32_t seed, int32_t* steps) {
  BeamSelector selector(config);
  struct Beam {
    Ids tokens;
    double logprob = 0;
  };
  std::vector<Beam> live(1);
  std::vector<Finished> finished;
  for (int32_t length = 1; !live.empty(); ++length) {
    *steps = length;
    std::vector<BeamCandidate> candidates;
    for (size_t beam = 0; beam < live.size(); ++beam) {
      std::vector<BeamCandidate> own;
      const std::vector<double> logprobs = logprobs_after(live[beam].tokens, seed);
      for (int32_t token = 0; token < kVocab; ++token) {
        own.push_back({.beam = static_cast<int32_t>(beam),
                       .token = token,
                       .logprob = live[beam].logprob + logprobs[static_cast<size_t>(token)],
                       .ends = token == kEnd});
      }
      std::ranges::stable_sort(own, std::greater(), &BeamCandidate::logprob);
      const auto most = static_cast<size_t>(selector.candidates_per_beam());
      if (own.size() > most) own.resize(most);
      candidates.insert(candidates.end(), own.begin(), own.end());
    }
    const BeamSelector::Decision decision = selector.select(candidates, length);
    const auto longer = [&](const BeamCandidate& candidate) {
      Ids tokens = live[static_cast<size_t>(candidate.beam)].tokens;
      tokens.push_back(candidate.token);
      return tokens;
    };
    for (const BeamCandidate& candidate : decision.finished) {
      finished.push_back({longer(candidate), selector.score(candidate.logprob, length)});
    }
    std::vector<Beam> next;
    for (const BeamCandidate& candidate : decision.live) {
      next.push_back({longer(candidate), candidate.logprob});
    }
    CHECK(decision.done == next.empty());
    live = std::move(next);
  }
  std::ranges::stable_sort(finished, std::greater(), &Finished::score);
  if (finished.size() > static_cast<size_t>(config.width)) {
    finished.resize(static_cast<size_t>(config.width));
  }
  return finished;
}

// Every sequence that ends by the end token or at the length, with its score.
void enumerate(const Ids& prefix, double logprob, const BeamSelector& selector, uint32_t seed,
               std::vector<Finished>& all) {
  const std::vector<double> logprobs = logprobs_after(prefix, seed);
  for (int32_t token = 0; token < kVocab; ++token) {
    Ids tokens = prefix;
    tokens.push_back(token);
    const double sum = logprob + logprobs[static_cast<size_t>(token)];
    const auto length = static_cast<int32_t>(tokens.size());
    if (token == kEnd || length == kMaxTokens) {
      all.push_back({tokens, selector.score(sum, length)});
    } else {
      enumerate(tokens, sum, selector, seed, all);
    }
  }
}

TEST_CASE("a search as wide as the language finds its best sequences") {
  // 5^3 live beginnings before the last token.
  for (const EarlyStopping rule : {EarlyStopping::kVllm, EarlyStopping::kNever}) {
    for (const double penalty : {-1.0, 0.0, 0.6, 1.0, 2.0}) {
      for (uint32_t seed = 0; seed < 20; ++seed) {
        CAPTURE(penalty);
        CAPTURE(seed);
        const BeamSelector::Config config{.width = 1000,
                                          .max_tokens = kMaxTokens,
                                          .length_penalty = penalty,
                                          .early_stopping = rule};
        int32_t steps = 0;
        const std::vector<Finished> found = search(config, seed, &steps);
        std::vector<Finished> all;
        enumerate({}, 0, BeamSelector(config), seed, all);
        std::ranges::stable_sort(all, std::greater(), &Finished::score);
        REQUIRE(found.size() == all.size());
        for (size_t i = 0; i < 50; ++i) {
          CHECK(found[i].tokens == all[i].tokens);
          CHECK(found[i].score == doctest::Approx(all[i].score).epsilon(1e-12));
        }
      }
    }
  }
}

TEST_CASE("the best of a narrow search is never better than that of the whole language") {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    for (int32_t width = 1; width <= 8; width *= 2) {
      BeamSelector::Config config{.width = width, .max_tokens = kMaxTokens, .length_penalty = 0};
      int32_t steps = 0;
      std::vector<Finished> all;
      enumerate({}, 0, BeamSelector(config), seed, all);
      const double best = std::ranges::max(all, {}, &Finished::score).score;
      const std::vector<Finished> found = search(config, seed, &steps);
      CHECK(found.front().score <= best);
      CHECK(static_cast<int32_t>(found.size()) == width);
    }
  }
}

TEST_CASE("width 1 takes the best token each time") {
  for (const EarlyStopping rule :
       {EarlyStopping::kVllm, EarlyStopping::kTrue, EarlyStopping::kFalse, EarlyStopping::kNever}) {
    for (uint32_t seed = 0; seed < 50; ++seed) {
      Ids greedy;
      do {
        const std::vector<double> logprobs = logprobs_after(greedy, seed);
        greedy.push_back(
            static_cast<int32_t>(std::ranges::max_element(logprobs) - logprobs.begin()));
      } while (greedy.back() != kEnd && greedy.size() < kMaxTokens);
      int32_t steps = 0;
      const auto found =
          search({.width = 1, .max_tokens = kMaxTokens, .early_stopping = rule}, seed, &steps);
      CHECK(found.front().tokens == greedy);
    }
  }
}

TEST_CASE("early stopping ends sooner, in the order of the rules") {
  int32_t total_true = 0, total_false = 0, total_never = 0;
  for (uint32_t seed = 0; seed < 100; ++seed) {
    const auto steps_of = [&](EarlyStopping rule) {
      int32_t steps = 0;
      search({.width = 2, .max_tokens = 30, .early_stopping = rule}, seed, &steps);
      return steps;
    };
    const int32_t when_true = steps_of(EarlyStopping::kTrue);
    const int32_t when_false = steps_of(EarlyStopping::kFalse);
    CHECK(when_true <= when_false);
    CHECK(when_false <= steps_of(EarlyStopping::kNever));
    total_true += when_true;
    total_false += when_false;
    total_never += steps_of(EarlyStopping::kNever);
  }
  CHECK(total_true < total_never);
  CHECK(total_false < total_never);
}

TEST_CASE("the rule of transformers keeps an ending only among the best of all") {
  BeamSelector selector({.width = 2, .max_tokens = 9, .early_stopping = EarlyStopping::kFalse});
  const auto decision = selector.select(
      {{0, 1, -1.0, false}, {0, 2, -1.1, false}, {0, kEnd, -1.2, true}, {0, 3, -1.3, false}}, 1);
  CHECK(decision.finished.empty());
  REQUIRE(decision.live.size() == 2);
  CHECK(decision.live[0].token == 1);
  BeamSelector vllm({.width = 2, .max_tokens = 9});
  CHECK(vllm.select({{0, 1, -1.0, false}, {0, kEnd, -1.2, true}}, 1).finished.size() == 1);
}

}  // namespace
}  // namespace octavo
