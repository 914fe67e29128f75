#include "engine/beam_search.h"

#include <algorithm>

namespace octavo {

BeamSearch::BeamSearch(const BeamSearchParams& search_params, int32_t max_tokens,
                       int32_t num_end_ids)
    : params(search_params),
      done(static_cast<size_t>(params.num_groups), false),
      live(static_cast<size_t>(params.beam_width)),
      finished(static_cast<size_t>(params.num_groups)) {
  for (int32_t i = 0; i < params.num_groups; ++i) {
    groups.emplace_back(BeamSelector::Config{.width = group_width(),
                                             .max_tokens = max_tokens,
                                             .length_penalty = params.length_penalty,
                                             .early_stopping = params.early_stopping,
                                             .num_end_ids = num_end_ids,
                                             .only_group = params.num_groups == 1});
  }
  for (const std::string& text : params.stop) longest_stop = std::max(longest_stop, text.size());
  live.front().alive = true;  // the prompt, from which all groups begin
}

int32_t BeamSearch::candidates_per_beam() const {
  const int32_t others = params.diversity_penalty > 0 ? params.beam_width - group_width() : 0;
  return groups.front().candidates_per_beam() + others;
}

bool BeamSearch::all_offered() const {
  return std::ranges::all_of(
      live, [](const LiveBeam& beam) { return !beam.alive || beam.candidates != nullptr; });
}

void BeamSearch::keep(Beam beam, int32_t group) {
  std::vector<Beam>& kept = finished[static_cast<size_t>(group)];
  kept.insert(std::ranges::upper_bound(kept, beam.score, std::greater(), &Beam::score),
              std::move(beam));
  if (static_cast<int32_t>(kept.size()) > group_width()) kept.pop_back();
}

std::vector<Beam> BeamSearch::best() const {
  std::vector<Beam> all;
  for (const std::vector<Beam>& kept : finished) all.insert(all.end(), kept.begin(), kept.end());
  std::ranges::stable_sort(all, std::greater(), &Beam::score);
  const int32_t wanted =
      params.num_return_sequences > 0 ? params.num_return_sequences : params.beam_width;
  if (static_cast<int32_t>(all.size()) > wanted) all.resize(static_cast<size_t>(wanted));
  return all;
}

}  // namespace octavo
