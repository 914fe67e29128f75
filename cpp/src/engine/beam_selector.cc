#include "engine/beam_selector.h"

#include <algorithm>
#include <cmath>

namespace octavo {

namespace {

BeamSelector::Config greedy_when_alone(BeamSelector::Config config) {
  if (config.width == 1 && config.only_group) config.early_stopping = EarlyStopping::kTrue;
  return config;
}

}  // namespace

BeamSelector::BeamSelector(const Config& config) : config_(greedy_when_alone(config)) {}

int32_t BeamSelector::candidates_per_beam() const {
  if (config_.early_stopping == EarlyStopping::kVllm) return 2 * config_.width;
  return std::max(2, 1 + config_.num_end_ids) * config_.width;
}

double BeamSelector::score(double logprob, int32_t length) const {
  return logprob / std::pow(static_cast<double>(std::max(length, 1)), config_.length_penalty);
}

BeamSelector::Decision BeamSelector::select(std::vector<BeamCandidate> candidates, int32_t length) {
  std::ranges::stable_sort(candidates, std::greater(), &BeamCandidate::logprob);
  Decision decision = config_.early_stopping == EarlyStopping::kVllm
                          ? select_vllm(candidates, length)
                          : select_bounded(candidates, length);
  note_chosen(candidates, decision);
  return decision;
}

void BeamSelector::note_chosen(std::span<const BeamCandidate> sorted, Decision& decision) const {
  for (const BeamCandidate& candidate : sorted) {
    if (static_cast<int32_t>(decision.chosen.size()) == config_.width) return;
    if (!candidate.ends) decision.chosen.push_back(candidate.token);
  }
}

BeamSelector::Decision BeamSelector::select_vllm(std::span<const BeamCandidate> sorted,
                                                 int32_t length) {
  Decision decision;
  const bool last = length >= config_.max_tokens;
  for (const BeamCandidate& candidate : sorted) {
    const bool room = static_cast<int32_t>(decision.live.size()) < config_.width;
    if (candidate.ends) {
      decision.finished.push_back(candidate);
    } else if (room) {
      decision.live.push_back(candidate);
    }
  }
  if (last) std::ranges::move(decision.live, std::back_inserter(decision.finished));
  if (last) decision.live.clear();
  decision.done = decision.live.empty();
  return decision;
}

// transformers' _beam_search (generation/utils.py), for one prompt: only the best
// candidates_per_beam() of all beams count, and of those that end only the best `width`.
BeamSelector::Decision BeamSelector::select_bounded(std::span<const BeamCandidate> sorted,
                                                    int32_t length) {
  Decision decision;
  const auto top = static_cast<size_t>(candidates_per_beam());
  if (sorted.size() > top) sorted = sorted.first(top);
  const bool closed = full() && config_.early_stopping == EarlyStopping::kTrue;
  for (size_t rank = 0; rank < sorted.size(); ++rank) {
    const BeamCandidate& candidate = sorted[rank];
    const bool last = length >= config_.max_tokens;
    if (!candidate.ends && !last) {
      if (static_cast<int32_t>(decision.live.size()) < config_.width) {
        decision.live.push_back(candidate);
      }
    } else if (static_cast<int32_t>(rank) < config_.width && !closed) {
      decision.finished.push_back(candidate);
      keep(score(candidate.logprob, length));
    }
  }
  const bool improvable = !decision.live.empty() && can_improve(decision.live[0].logprob, length);
  decision.done = !improvable || (full() && config_.early_stopping == EarlyStopping::kTrue);
  if (decision.done) decision.live.clear();
  return decision;
}

void BeamSelector::keep(double score) {
  kept_.insert(std::ranges::upper_bound(kept_, score, std::greater()), score);
  if (static_cast<int32_t>(kept_.size()) > config_.width) kept_.pop_back();
}

bool BeamSelector::can_improve(double best_live, int32_t length) const {
  if (!full()) return true;
  const bool at_the_end =
      config_.early_stopping == EarlyStopping::kNever && config_.length_penalty > 0;
  return score(best_live, at_the_end ? config_.max_tokens : length) > kept_.back();
}

}  // namespace octavo
