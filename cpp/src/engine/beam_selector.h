// The rules of beam search, without a model: which candidates go on, which are kept as finished,
// and when a search ends. One for each group of beams, owned by its search; step thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "octavo/beam_search.h"

namespace octavo {

// One more token for a live beam.
struct BeamCandidate {
  int32_t beam = 0;  // the live beam that it continues
  int32_t token = 0;
  double logprob = 0;  // the sum over the beam's tokens, this one included
  bool ends = false;   // by an end token, a stop text or the length
};

class BeamSelector {
 public:
  struct Config {
    int32_t width = 1;
    int32_t max_tokens = 16;
    double length_penalty = 1;
    EarlyStopping early_stopping = EarlyStopping::kVllm;
    int32_t num_end_ids = 1;  // how many tokens can end a beam
    bool only_group = true;
  };
  // With one beam in all the search is greedy, whatever the rule, as in transformers.
  explicit BeamSelector(const Config& config);

  // The number of its best tokens that each live beam must offer as candidates.
  int32_t candidates_per_beam() const;

  struct Decision {
    std::vector<BeamCandidate> live;      // the next beams, best first, at most width
    std::vector<BeamCandidate> finished;  // to be kept, each with the score of `score`
    std::vector<int32_t> chosen;          // the tokens of the best that do not end, at most width
    bool done = false;                    // the search is over
  };
  // All candidates of a step, whose tokens are number `length` (from 1) of their beams. With
  // `done`, no beam goes on.
  Decision select(std::vector<BeamCandidate> candidates, int32_t length);

  // logprob / length^length_penalty
  double score(double logprob, int32_t length) const;

 private:
  Decision select_vllm(std::span<const BeamCandidate> sorted, int32_t length);
  Decision select_bounded(std::span<const BeamCandidate> sorted, int32_t length);
  void note_chosen(std::span<const BeamCandidate> sorted, Decision& decision) const;
  void keep(double score);
  bool can_improve(double best_live, int32_t length) const;
  bool full() const { return static_cast<int32_t>(kept_.size()) == config_.width; }

  const Config config_;
  std::vector<double> kept_;  // transformers' rules: scores of the best finished, at most width
};

}  // namespace octavo
