// A beam search in flight: its live beams, whose tokens are in the request's samples, and the beams
// that have ended. Owned by its request; step thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/beam_selector.h"
#include "octavo/beam_search.h"
#include "octavo/request_output.h"

namespace octavo {

// What a live beam knows beside its sample's tokens.
struct LiveBeam {
  bool alive = false;
  double logprob = 0;  // the sum over its tokens
  // For each token, the candidates that it was chosen from. Shared by the beams that share it.
  std::vector<std::shared_ptr<const TokenLogprobs>> steps;
  std::shared_ptr<const TokenLogprobs> candidates;  // of the next token; none: not computed yet
  std::string text;  // the end of its text, as long as a stop text may need it
};

struct BeamSearch {
  BeamSearch(const BeamSearchParams& search_params, int32_t max_tokens, int32_t num_end_ids);

  int32_t group_width() const { return params.beam_width / params.num_groups; }
  int32_t group_of(int32_t beam) const { return beam / group_width(); }
  // Candidates that are asked of each row: enough that taking a penalty from the tokens of other
  // groups leaves as many as the rule needs.
  int32_t candidates_per_beam() const;
  bool all_offered() const;  // every live beam has its candidates
  void keep(Beam beam, int32_t group);
  // The beams to return, best first.
  std::vector<Beam> best() const;

  BeamSearchParams params;
  std::vector<BeamSelector> groups;
  std::vector<bool> done;                   // by group
  std::vector<LiveBeam> live;               // [beam_width], beside the request's samples
  std::vector<std::vector<Beam>> finished;  // by group, best first, at most its width
  int32_t length = 0;                       // tokens of every live beam
  size_t longest_stop = 0;                  // bytes
};

}  // namespace octavo
