// Beam search in the engine: each live beam is a sample of its request. A beam whose candidates are
// known is parked; when all of a request's beams are, the next ones are chosen from them, and
// forked from their parents' blocks.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "engine/engine_impl.h"

namespace octavo {
namespace {

constexpr int64_t kBlockOfCopies = 1;  // each beam may hold one more block than it fills

// The stop text that is complete in `text` within its last `fresh` bytes, first in its list; -1.
int32_t find_stop(std::string_view text, size_t fresh, const std::vector<std::string>& stops) {
  for (size_t i = 0; i < stops.size(); ++i) {
    const size_t reach = stops[i].size() + fresh - 1;
    const size_t from = text.size() > reach ? text.size() - reach : 0;
    if (fresh > 0 && text.find(stops[i], from) != std::string_view::npos) {
      return static_cast<int32_t>(i);
    }
  }
  return -1;
}

}  // namespace

struct Engine::Impl::BeamEnd {
  bool ends = false;
  std::optional<int32_t> stop_token_id;
  int32_t stop_index = -1;
};

int32_t Engine::Impl::check_beams(std::span<const int32_t> prompt,
                                  const BeamSearchParams& params) const {
  params.validate(loaded.info.vocab_size);
  const int32_t max_tokens = check_prompt(prompt, params.effective_tokens());
  if (params.beam_width > loaded.max_num_seqs) {
    throw InvalidArgument(str_cat("beam_width: ", params.beam_width,
                                  "; expected at most max_num_seqs, ", loaded.max_num_seqs));
  }
  const int64_t size = loaded.info.block_size;
  const auto blocks_of = [size](int64_t tokens) { return (tokens + size - 1) / size; };
  const int64_t most = blocks_of(static_cast<int64_t>(prompt.size())) +
                       params.beam_width * (blocks_of(max_tokens) + kBlockOfCopies);
  if (params.beam_width > 1 && most > loaded.info.num_kv_blocks) {
    throw InvalidArgument(str_cat("beam_width: ", params.beam_width, " beams of ", max_tokens,
                                  " tokens may need ", most, " blocks; expected at most ",
                                  loaded.info.num_kv_blocks,
                                  " (fewer beams or tokens, or a larger kv_cache_memory_bytes)"));
  }
  if (!params.stop.empty() && !grammars.has_vocabulary()) {
    throw InvalidArgument("stop: beams need the tokens' texts; expected Engine::set_vocabulary");
  }
  return max_tokens;
}

void Engine::Impl::start_beams(Request& request, const BeamSearchParams& params) {
  const auto width = static_cast<size_t>(params.beam_width);
  request.samples.resize(width);
  for (size_t i = 0; i < width; ++i) {
    request.samples[i].request = &request;
    request.samples[i].index = static_cast<int32_t>(i);
  }
  request.beams =
      std::make_unique<BeamSearch>(params, request.max_tokens, request.stop.num_end_ids());
}

std::string_view Engine::Impl::token_text(int32_t token) const {
  const auto index = static_cast<size_t>(token);
  return token_texts && index < token_texts->size() ? (*token_texts)[index] : std::string_view();
}

// A row of a live beam came: `token` is the best token, or -1.
void Engine::Impl::offer(Sample& sample, int32_t token, TokenLogprobs candidates,
                         std::vector<RequestOutput>& outputs) {
  Request& request = *sample.request;
  BeamSearch& search = *request.beams;
  if (!request.prompt_computed) {
    request.prompt_computed = true;
    request.num_cached_tokens = std::max(sample.sequence->num_cached_tokens, 0);
  }
  if (token < 0) {
    RequestOutput reason;
    end_without_token(sample, reason);
    if (reason.finish_reason == FinishReason::kError) {
      fail_request(request, reason.error, outputs);
      return;
    }
    candidates = {};  // its structure is complete, and nothing may follow
  } else {
    // The drawn token stands in front of the best ones, and again among them.
    candidates.token_ids.erase(candidates.token_ids.begin());
    candidates.logprobs.erase(candidates.logprobs.begin());
    candidates.ranks.erase(candidates.ranks.begin());
  }
  search.live[static_cast<size_t>(sample.index)].candidates =
      std::make_shared<const TokenLogprobs>(std::move(candidates));
  sample.sequence->parked = true;
  if (search.all_offered()) advance_beams(request, outputs);
}

// Whether a candidate ends its beam, and by what.
Engine::Impl::BeamEnd Engine::Impl::beam_end(const Request& request, int32_t beam,
                                             int32_t token) const {
  const BeamSearch& search = *request.beams;
  const Sample& parent = request.samples[static_cast<size_t>(beam)];
  const StopCondition::Verdict verdict = request.stop.check(token, search.length);
  if (verdict.reason == FinishReason::kStop) {
    return {.ends = true, .stop_token_id = verdict.stop_token_id};
  }
  if (parent.matcher && std::ranges::binary_search(request.grammar_end_ids, token)) {
    return {.ends = true};  // ignore_eos: the structure is complete all the same
  }
  if (search.params.stop.empty() || search.length <= request.params.min_tokens) return {};
  const std::string_view fresh = token_text(token);
  const std::string text = str_cat(search.live[static_cast<size_t>(beam)].text, std::string(fresh));
  const int32_t stop = find_stop(text, fresh.size(), search.params.stop);
  return {.ends = stop >= 0, .stop_index = stop};
}

// The candidates of one live beam, after the penalty for what the groups before have taken.
std::vector<BeamCandidate> Engine::Impl::candidates_of(const Request& request, int32_t beam,
                                                       std::span<const int32_t> taken) const {
  const BeamSearch& search = *request.beams;
  const LiveBeam& live = search.live[static_cast<size_t>(beam)];
  std::vector<BeamCandidate> candidates;
  for (size_t i = 0; i < live.candidates->token_ids.size(); ++i) {
    const float logprob = live.candidates->logprobs[i];
    if (std::isinf(logprob)) continue;  // forbidden
    const int32_t token = live.candidates->token_ids[i];
    const auto penalty = static_cast<double>(search.params.diversity_penalty) *
                         static_cast<double>(std::ranges::count(taken, token));
    candidates.push_back(
        {.beam = beam, .token = token, .logprob = live.logprob + logprob - penalty});
  }
  std::ranges::stable_sort(candidates, std::greater(), &BeamCandidate::logprob);
  const auto most = static_cast<size_t>(search.groups.front().candidates_per_beam());
  if (candidates.size() > most) candidates.resize(most);
  for (BeamCandidate& candidate : candidates) {
    candidate.ends = beam_end(request, beam, candidate.token).ends;
  }
  return candidates;
}

// The candidates of a group's live beams. Before the first token there is one beam for all groups.
std::vector<BeamCandidate> Engine::Impl::beam_candidates(const Request& request, int32_t group,
                                                         std::span<const int32_t> taken) const {
  const BeamSearch& search = *request.beams;
  const int32_t width = search.group_width();
  const int32_t first = search.length == 1 ? 0 : group * width;
  const int32_t last = search.length == 1 ? 1 : first + width;
  std::vector<BeamCandidate> candidates;
  for (int32_t beam = first; beam < last; ++beam) {
    if (!search.live[static_cast<size_t>(beam)].alive) continue;
    const std::vector<BeamCandidate> own = candidates_of(request, beam, taken);
    candidates.insert(candidates.end(), own.begin(), own.end());
  }
  return candidates;
}

// A beam that goes no further, by `candidate`.
Beam Engine::Impl::finished_beam(const Request& request, int32_t group,
                                 const BeamCandidate& candidate) const {
  const BeamSearch& search = *request.beams;
  const LiveBeam& live = search.live[static_cast<size_t>(candidate.beam)];
  const auto tokens = request.output_tokens(request.samples[static_cast<size_t>(candidate.beam)]);
  const BeamEnd end = beam_end(request, candidate.beam, candidate.token);
  Beam beam{
      .token_ids = {tokens.begin(), tokens.end()},
      .logprob = candidate.logprob,
      .score = search.groups[static_cast<size_t>(group)].score(candidate.logprob, search.length),
      .finish_reason = end.ends ? FinishReason::kStop : FinishReason::kLength,
      .stop_token_id = end.stop_token_id,
      .stop_index = end.stop_index,
      .logprobs = live.steps};
  beam.token_ids.push_back(candidate.token);
  beam.logprobs.push_back(live.candidates);
  return beam;
}

// Every live beam has its candidates: one more token for all.
void Engine::Impl::advance_beams(Request& request, std::vector<RequestOutput>& outputs) {
  BeamSearch& search = *request.beams;
  ++search.length;
  std::vector<int32_t> taken;
  std::vector<std::pair<int32_t, BeamCandidate>> next;  // by group
  for (int32_t group = 0; group < search.params.num_groups; ++group) {
    if (search.done[static_cast<size_t>(group)]) continue;
    const BeamSelector::Decision decision = search.groups[static_cast<size_t>(group)].select(
        beam_candidates(request, group, taken), search.length);
    for (const BeamCandidate& candidate : decision.finished) {
      search.keep(finished_beam(request, group, candidate), group);
    }
    for (const BeamCandidate& candidate : decision.live) {
      next.emplace_back(group, candidate);
    }
    taken.insert(taken.end(), decision.chosen.begin(), decision.chosen.end());
    search.done[static_cast<size_t>(group)] = decision.done;
  }
  keep_complete_beams(request);
  place_beams(request, next);
  RequestOutput output{.request_id = request.id,
                       .num_cached_tokens = request.num_cached_tokens,
                       .times = request.times};
  if (next.empty()) {
    finish_beams(request, output);
  } else if (search.params.stream) {
    output.beams.push_back(best_live_beam(request));
  } else {
    return;
  }
  outputs.push_back(std::move(output));
}

// A beam whose structure is complete and allows nothing more, not even an end token.
void Engine::Impl::keep_complete_beams(Request& request) {
  BeamSearch& search = *request.beams;
  for (size_t slot = 0; slot < search.live.size(); ++slot) {
    const LiveBeam& live = search.live[slot];
    if (!live.alive || !live.candidates->token_ids.empty()) continue;
    const int32_t group = search.group_of(static_cast<int32_t>(slot));
    const auto tokens = request.output_tokens(request.samples[slot]);
    search.keep(
        {.token_ids = {tokens.begin(), tokens.end()},
         .logprob = live.logprob,
         .score = search.groups[static_cast<size_t>(group)].score(live.logprob, search.length - 1),
         .finish_reason = FinishReason::kStop,
         .logprobs = live.steps},
        group);
  }
}

// The first child of a beam takes its place, in its own group; others are forked into places whose
// beams have no child. Forks come first, while the parents are what they were.
void Engine::Impl::place_beams(Request& request,
                               std::span<const std::pair<int32_t, BeamCandidate>> next) {
  BeamSearch& search = *request.beams;
  std::vector<const BeamCandidate*> stays(search.live.size());  // by place
  std::vector<std::pair<int32_t, const BeamCandidate*>> forks;  // group
  for (const auto& [group, candidate] : next) {
    const BeamCandidate*& place = stays[static_cast<size_t>(candidate.beam)];
    if (place == nullptr && search.group_of(candidate.beam) == group) {
      place = &candidate;
    } else {
      forks.emplace_back(group, &candidate);
    }
  }
  std::vector<std::pair<Sample, LiveBeam>> children;
  for (const auto& [group, candidate] : forks) children.push_back(fork_beam(request, *candidate));
  for (size_t slot = 0; slot < search.live.size(); ++slot) {
    LiveBeam& live = search.live[slot];
    if (stays[slot] != nullptr) {
      extend_beam(request.samples[slot], live, *stays[slot]);
    } else if (live.alive) {
      end_sample(request.samples[slot]);
      request.samples[slot].finished = false;  // the place may be taken again
      live = {};
    }
  }
  for (size_t i = 0; i < forks.size(); ++i) {
    const int32_t first = forks[i].first * search.group_width();
    int32_t slot = first;
    while (search.live[static_cast<size_t>(slot)].alive) ++slot;
    seat_beam(request, slot, std::move(children[i]));
  }
}

// A copy of the candidate's beam, extended by it, whose sequence shares the beam's blocks.
std::pair<Sample, LiveBeam> Engine::Impl::fork_beam(Request& request,
                                                    const BeamCandidate& candidate) {
  const Sample& parent = request.samples[static_cast<size_t>(candidate.beam)];
  std::pair<Sample, LiveBeam> child;
  Sample& sample = child.first;
  child.second = request.beams->live[static_cast<size_t>(candidate.beam)];
  sample.request = &request;
  sample.sequence = std::make_unique<Sequence>(next_sequence_id++, parent.sequence->tokens,
                                               parent.sequence->cache_salt);
  sample.sequence->prompt_len = parent.sequence->prompt_len;
  sample.edits = std::make_unique<EditState>(*parent.edits);
  if (parent.matcher) sample.matcher = parent.matcher->fork();
  sample.last_token = parent.last_token;
  Sequence* sequence = sample.sequence.get();
  extend_beam(sample, child.second, candidate);
  scheduler.fork(*parent.sequence, sequence);
  return child;
}

void Engine::Impl::extend_beam(Sample& sample, LiveBeam& live, const BeamCandidate& candidate) {
  sample.sequence->tokens.push_back(candidate.token);
  sample.sequence->parked = false;
  sample.edits->append(candidate.token);
  if (sample.matcher) {
    OCTAVO_CHECK(sample.matcher->accept(candidate.token), "beam search: the structure has no way ",
                 "on with token ", candidate.token);
  }
  live.logprob = candidate.logprob;
  live.steps.push_back(std::move(live.candidates));
  live.candidates.reset();
  const size_t kept = sample.request->beams->longest_stop;
  if (kept > 0) {
    live.text += token_text(candidate.token);
    if (live.text.size() > kept) live.text.erase(0, live.text.size() - kept);
  }
  ++counters.num_generated_tokens;
  record_token(sample);
}

void Engine::Impl::seat_beam(Request& request, int32_t slot, std::pair<Sample, LiveBeam> child) {
  Sample& sample = request.samples[static_cast<size_t>(slot)];
  sample = std::move(child.first);
  sample.index = slot;
  set_custom(sample);
  samples_by_sequence.emplace(sample.sequence->id, &sample);
  request.beams->live[static_cast<size_t>(slot)] = std::move(child.second);
}

Beam Engine::Impl::best_live_beam(const Request& request) const {
  const BeamSearch& search = *request.beams;
  size_t best = 0;
  for (size_t slot = 0; slot < search.live.size(); ++slot) {
    const LiveBeam& live = search.live[slot];
    if (!live.alive) continue;
    if (!search.live[best].alive || live.logprob > search.live[best].logprob) best = slot;
  }
  const auto tokens = request.output_tokens(request.samples[best]);
  const double logprob = search.live[best].logprob;
  return {.token_ids = {tokens.begin(), tokens.end()},
          .logprob = logprob,
          .score = search.groups.front().score(logprob, search.length)};
}

void Engine::Impl::finish_beams(Request& request, RequestOutput& output) {
  output.beams = request.beams->best();
  if (output.beams.empty()) {
    output.finish_reason = FinishReason::kError;
    output.error = "beam search: no beam is left; expected that the parameters allow a token";
  } else {
    output.finish_reason = output.beams.front().finish_reason;
    output.stop_token_id = output.beams.front().stop_token_id;
  }
  for (Sample& sample : request.samples) end_sample(sample);
  output.times = request.times;
  output.request_finished = true;
  forget(request.id, output.finish_reason);
}

}  // namespace octavo
