// Structured outputs: requests wait outside the scheduler until their grammar is compiled; their
// masks are filled while the forward pass runs.
#include <algorithm>
#include <bit>

#include "base/check.h"
#include "engine/engine_impl.h"

namespace octavo {

std::shared_ptr<GrammarJob> Engine::Impl::submit_grammar(const SamplingParams& params) const {
  if (!params.structured_outputs) return nullptr;
  return grammars.submit(*params.structured_outputs);
}

// End tokens may end the structure: the model's own, also with ignore_eos, and stop ids without a
// text. A stop id with a text belongs to the structure, and ends the request where it comes.
void Engine::Impl::start_grammar(Request& request, std::shared_ptr<GrammarJob> grammar) {
  std::vector<int32_t>& ends = request.grammar_end_ids;
  ends = loaded.eos_token_ids;
  ends.insert(ends.end(), request.params.extra_eos_token_ids.begin(),
              request.params.extra_eos_token_ids.end());
  for (int32_t id : request.params.stop_token_ids) {
    if (grammars.is_special(id)) ends.push_back(id);
  }
  std::ranges::sort(ends);
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  request.grammar = std::move(grammar);
  awaiting_grammar.push_back(request.id);
}

// Requests whose grammar is ready go to the scheduler; those whose grammar failed end.
std::vector<RequestOutput> Engine::Impl::admit_compiled() {
  std::vector<RequestOutput> outputs;
  std::erase_if(awaiting_grammar, [&](RequestId id) {
    const auto found = requests.find(id);
    if (found == requests.end()) return true;  // aborted
    Request& request = *found->second;
    const GrammarJob::State state = request.grammar->state();
    if (state == GrammarJob::State::kCompiling) return false;
    if (state == GrammarJob::State::kFailed) {
      fail_request(request, request.grammar->error(), outputs);
      return true;
    }
    try {
      make_matcher(request.samples.front());
    } catch (const std::exception& error) {
      fail_request(request, error.what(), outputs);
      return true;
    }
    scheduler.add(request.samples.front().sequence.get());
    return true;
  });
  return outputs;
}

void Engine::Impl::make_matcher(Sample& sample) const {
  const Request& request = *sample.request;
  if (!request.grammar) return;
  sample.matcher = request.grammar->grammar().new_matcher(request.grammar_end_ids);
}

void Engine::Impl::start_masks(StepRows& rows) {
  mask_jobs.clear();
  mask_rows.clear();
  for (size_t row = 0; row < rows.rows.size(); ++row) {
    Sample& sample = *rows.samples[row];
    if (!sample.matcher || rows.prompt_positions[row] >= 0) continue;
    sample.mask.resize(static_cast<size_t>(mask_words(loaded.info.vocab_size)));
    rows.rows[row].edits.mask = sample.mask;
    mask_jobs.push_back({.matcher = sample.matcher.get(), .mask = sample.mask});
    mask_rows.push_back(row);
  }
  if (!mask_jobs.empty()) mask_filler.start(mask_jobs);
}

void Engine::Impl::finish_masks(StepRows& rows) {
  if (mask_jobs.empty()) return;
  mask_filler.wait();
  for (size_t i = 0; i < mask_jobs.size(); ++i) {
    SampleRow& row = rows.rows[mask_rows[i]];
    Sample& sample = *rows.samples[mask_rows[i]];
    if (!mask_jobs[i].error.empty()) {
      sample.error = str_cat("structured_outputs: ", mask_jobs[i].error);
      std::ranges::fill(sample.mask, 0u);
    }
    if (row.edits.banned.empty() || !sample.matcher->completed()) continue;
    // min_tokens yields where nothing but an end token may follow.
    int64_t allowed = 0, ends = 0;
    for (uint32_t word : sample.mask) allowed += std::popcount(word);
    for (int32_t id : sample.request->grammar_end_ids) {
      ends += (sample.mask[static_cast<size_t>(id) / 32] >> (id % 32)) & 1;
    }
    if (allowed == ends) row.edits.banned = {};
  }
}

}  // namespace octavo
