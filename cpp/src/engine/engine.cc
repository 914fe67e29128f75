#include "octavo/engine.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/engine_impl.h"

namespace octavo {

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone: return "";
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kAbort: return "abort";
    case FinishReason::kError: return "error";
    case FinishReason::kRepetition: return "repetition";
  }
  return "";
}

Engine::Engine(const EngineConfig& config) : impl_(std::make_unique<Impl>(config)) {}
// In a forked child the threads do not exist, and a step may have been under way: what is there is
// left as it is.
Engine::~Engine() {
  if (getpid() != impl_->owner) static_cast<void>(impl_.release());
}

RequestId Engine::add_request(std::span<const int32_t> prompt_token_ids,
                              const SamplingParams& params, std::string_view cache_salt) {
  impl_->check_process();
  const int32_t max_tokens = impl_->check_prompt(prompt_token_ids, params);
  std::shared_ptr<GrammarJob> grammar = impl_->submit_grammar(params);
  const auto lock = impl_->lock();
  Request& request = impl_->new_request(prompt_token_ids, params, max_tokens);
  impl_->enqueue(request, prompt_token_ids, cache_salt, std::move(grammar));
  return request.id;
}

RequestId Engine::add_beam_search(std::span<const int32_t> prompt_token_ids,
                                  const BeamSearchParams& params, std::string_view cache_salt) {
  impl_->check_process();
  const int32_t max_tokens = impl_->check_beams(prompt_token_ids, params);
  std::shared_ptr<GrammarJob> grammar = impl_->submit_grammar(params.tokens);
  const auto lock = impl_->lock();
  Request& request = impl_->new_request(prompt_token_ids, params.effective_tokens(), max_tokens);
  impl_->start_beams(request, params);
  impl_->enqueue(request, prompt_token_ids, cache_salt, std::move(grammar));
  return request.id;
}

void Engine::validate(std::span<const int32_t> prompt_token_ids,
                      const BeamSearchParams& params) const {
  impl_->check_process();
  impl_->check_beams(prompt_token_ids, params);
  impl_->submit_grammar(params.tokens);
}

void Engine::validate(std::span<const int32_t> prompt_token_ids,
                      const SamplingParams& params) const {
  impl_->check_process();
  impl_->check_prompt(prompt_token_ids, params);
  impl_->submit_grammar(params);
}

void Engine::set_vocabulary(std::vector<std::string> token_bytes) {
  impl_->check_process();
  auto texts = std::make_shared<const std::vector<std::string>>(token_bytes);
  impl_->grammars.set_vocabulary(std::move(token_bytes));
  const auto lock = impl_->lock();
  impl_->token_texts = std::move(texts);
}

bool Engine::has_vocabulary() const { return impl_->grammars.has_vocabulary(); }

RequestId Engine::fork(RequestId parent, int32_t sample_index, const SamplingParams& params) {
  const auto lock = impl_->lock();
  const Sequence& sequence = *impl_->find_sample(parent, sample_index).sequence;
  if (params.prompt_logprobs) {
    throw InvalidArgument("prompt_logprobs: a fork does not compute its prompt; expected none");
  }
  if (impl_->requests.at(parent)->beams) {
    throw InvalidArgument(
        str_cat("request ", parent, " is a beam search; expected one that draws"));
  }
  if (params.structured_outputs) {
    throw InvalidArgument("structured_outputs: a fork begins within a text; expected none");
  }
  const int32_t max_tokens = impl_->check_prompt(sequence.tokens, params);
  Request& request = impl_->new_request(sequence.tokens, params, max_tokens);
  impl_->scheduler.fork(sequence, impl_->new_sequence(request.samples.front(), sequence.tokens,
                                                      sequence.prompt_len, sequence.cache_salt));
  return request.id;
}

std::vector<RequestOutput> Engine::step() {
  auto lock = impl_->lock();
  impl_->asleep.check_awake();
  std::vector<RequestOutput> outputs = impl_->admit_compiled();
  const StepPlan plan = impl_->scheduler.schedule();
  if (plan.empty()) {
    const bool waits = !impl_->awaiting_grammar.empty();
    OCTAVO_CHECK(impl_->requests.empty() || waits, "scheduler: requests wait and none can run");
    // Short, since requests that can run may be added meanwhile.
    if (waits && outputs.empty()) impl_->compiled.wait_for(lock, std::chrono::milliseconds(1));
    return outputs;
  }
  for (RequestOutput& output : impl_->run(plan)) outputs.push_back(std::move(output));
  std::ranges::sort(outputs, {}, [](const RequestOutput& output) {
    return std::pair(output.request_id, output.sample_index);
  });
  return outputs;
}

bool Engine::abort(RequestId id) {
  const auto lock = impl_->lock();
  const auto found = impl_->requests.find(id);
  if (found == impl_->requests.end()) return false;
  for (Sample& sample : found->second->samples) impl_->end_sample(sample);
  impl_->forget(id, FinishReason::kAbort);
  return true;
}

bool Engine::abort_sample(RequestId id, int32_t sample_index) {
  const auto lock = impl_->lock();
  const auto found = impl_->requests.find(id);
  if (found == impl_->requests.end()) return false;
  Request& request = *found->second;
  if (sample_index < 0 || static_cast<size_t>(sample_index) >= request.samples.size()) return false;
  if (request.beams) return false;  // its beams are one result
  Sample& sample = request.samples[static_cast<size_t>(sample_index)];
  // Sample 0 computes the prompt for all; until then the whole request is what can be aborted.
  if (sample.finished || (sample_index == 0 && !request.prompt_computed && request.params.n > 1)) {
    return false;
  }
  impl_->end_sample(sample);
  // Its text came to an end: the caller found a stop string.
  if (request.finished()) impl_->forget(id, FinishReason::kStop);
  return true;
}

bool Engine::has_unfinished_requests() const {
  const auto lock = impl_->lock();
  return !impl_->requests.empty();
}

EngineStats Engine::stats() const {
  const auto lock = impl_->lock();
  EngineStats stats = impl_->counters;
  stats.num_running = impl_->scheduler.num_running();
  stats.num_waiting =
      impl_->scheduler.num_waiting() + static_cast<int64_t>(impl_->awaiting_grammar.size());
  stats.num_preemptions = impl_->scheduler.num_preemptions();
  stats.num_recomputed_tokens = impl_->scheduler.num_recomputed_tokens();
  stats.num_blocks_used = impl_->blocks.num_blocks_used();
  stats.prefix_cache_queries = impl_->blocks.prefix_cache_queries();
  stats.prefix_cache_hits = impl_->blocks.prefix_cache_hits();
  return stats;
}

const ModelInfo& Engine::model_info() const { return impl_->loaded.info; }

void Engine::reset_prefix_cache() {
  const auto lock = impl_->lock();
  impl_->blocks.reset_prefix_cache();
}

std::vector<float> Engine::compute_logits(std::span<const int32_t> token_ids) {
  const auto lock = impl_->lock();
  impl_->asleep.check_awake();
  const ModelInfo& info = impl_->loaded.info;
  const auto length = static_cast<int64_t>(token_ids.size());
  if (length < 1 || length > info.max_model_len) {
    throw InvalidArgument(
        str_cat("compute_logits: ", length, " tokens; expected 1 to ", info.max_model_len));
  }
  impl_->check_vocabulary(token_ids);
  std::vector<float> logits(static_cast<size_t>(length * info.vocab_size));
  BlockTable table;
  const int64_t chunk = impl_->loaded.max_num_batched_tokens;
  for (int64_t begin = 0; begin < length; begin += chunk) {
    impl_->run_logits_chunk(token_ids, static_cast<int32_t>(begin),
                            static_cast<int32_t>(std::min(begin + chunk, length)), table,
                            logits.data() + begin * info.vocab_size);
  }
  return logits;
}

}  // namespace octavo
