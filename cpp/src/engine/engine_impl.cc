#include "engine/engine_impl.h"

#include <algorithm>

#include "base/check.h"
#include "base/philox.h"

namespace octavo {

namespace {

constexpr int32_t kMaxMaskThreads = 4;

// False, with the reason in the sample, where a processor throws.
bool run_processors(Sample& sample, std::span<float> logits) {
  const Request& request = *sample.request;
  try {
    for (const auto& processor : request.params.logits_processors) {
      processor->process(request.output_tokens(sample), logits);
    }
    return true;
  } catch (const std::exception& error) {
    sample.error = str_cat("logits_processors: ", error.what());
  } catch (...) {
    sample.error = "logits_processors: an exception of unknown type; expected a std::exception";
  }
  return false;
}

}  // namespace

Engine::Impl::Impl(const EngineConfig& engine_config)
    : config(engine_config),
      loaded(load_model(engine_config)),
      blocks(static_cast<int32_t>(loaded.info.num_kv_blocks), loaded.info.block_size,
             engine_config.enable_prefix_caching),
      scheduler({.max_num_seqs = loaded.max_num_seqs,
                 .max_num_batched_tokens = loaded.max_num_batched_tokens,
                 .enable_chunked_prefill = engine_config.enable_chunked_prefill},
                blocks),
      grammars(loaded.info.vocab_size, [this] { compiled.notify_all(); }),
      mask_filler(std::clamp(loaded.info.num_threads, 1, kMaxMaskThreads)) {
  counters.num_blocks_total = loaded.info.num_kv_blocks;
}

// A forked child has neither the threads nor a consistent mutex: refuse before touching either.
void Engine::Impl::check_process() const {
  if (getpid() != owner) {
    throw Error(
        "engine: used in a process forked after its creation; expected the child to create "
        "an engine of its own");
  }
}

std::unique_lock<std::mutex> Engine::Impl::lock() const {
  check_process();
  return std::unique_lock(mutex);
}

void Engine::Impl::check_vocabulary(std::span<const int32_t> ids) const {
  const int64_t size = loaded.info.vocab_size;
  for (int32_t id : ids) {
    if (id < 0 || id >= size) {
      throw InvalidArgument(
          str_cat("Token id ", id, " is out of vocabulary; expected 0 to ", size - 1));
    }
  }
}

// Returns the number of tokens to generate at most.
int32_t Engine::Impl::check_prompt(std::span<const int32_t> prompt,
                                   const SamplingParams& params) const {
  const ModelInfo& info = loaded.info;
  const auto length = static_cast<int64_t>(prompt.size());
  if (length == 0) throw InvalidArgument("The decoder prompt cannot be empty");
  check_vocabulary(prompt);
  if (length > info.max_model_len) {
    throw InvalidArgument(str_cat(
        "This model's maximum context length is ", info.max_model_len,
        " tokens. However, your prompt contains ", length,
        " input tokens, which exceeds this limit even without any output tokens. Please reduce the "
        "length of the prompt."));
  }
  if (length == info.max_model_len && params.max_tokens != 0) {
    throw InvalidArgument(str_cat(
        "The decoder prompt (length ", length,
        ") plus the number of requested output tokens (at least 1) is longer than the maximum "
        "model "
        "length of ",
        info.max_model_len,
        ". Make sure that `max_model_len` is no smaller than the number of text tokens (prompt + "
        "requested output tokens)."));
  }
  params.validate(info.vocab_size);
  check_logprobs(params.logprobs, "sample");
  check_logprobs(params.prompt_logprobs, "prompt");
  const int64_t room = info.max_model_len - length;
  const int64_t wanted = std::min<int64_t>(room, params.max_tokens.value_or(room));
  // The last token is generated and never stored.
  const int64_t storable = kv_capacity() - length + 1;
  if (storable < 1 || (params.max_tokens && wanted > storable)) {
    throw InvalidArgument(
        str_cat("prompt of ", length, " tokens with max_tokens=", wanted,
                " can never fit in the KV cache of ", kv_capacity(),
                " tokens; expected at most that many, or a larger kv_cache_memory_bytes"));
  }
  return static_cast<int32_t>(std::min(wanted, storable));
}

void Engine::Impl::check_logprobs(std::optional<int32_t> count, const char* kind) const {
  const int32_t most = config.max_logprobs;
  if (!count || most == -1) return;
  const int64_t asked = *count == -1 ? loaded.info.vocab_size : *count;
  if (asked > most) {
    throw InvalidArgument(str_cat("Requested ", kind, " logprobs of ", asked,
                                  ", which is greater than max allowed: ", most));
  }
}

Request& Engine::Impl::new_request(std::span<const int32_t> tokens, const SamplingParams& params,
                                   int32_t max_tokens) {
  const RequestId id = next_request_id++;
  SamplingParams effective = params;
  if (loaded.eos_token_ids.size() > 1) {
    effective.extra_eos_token_ids.insert(effective.extra_eos_token_ids.end(),
                                         loaded.eos_token_ids.begin() + 1,
                                         loaded.eos_token_ids.end());
  }
  const PhiloxBlock derived =
      philox4x32({static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32), 0, 1},
                 {static_cast<uint32_t>(config.seed), static_cast<uint32_t>(config.seed >> 32)});
  auto request = std::make_unique<Request>(
      Request{.id = id,
              .params = effective,
              .seed = params.seed.value_or((uint64_t{derived[0]} << 32) | derived[1]),
              .stop = StopCondition(effective, loaded.info.eos_token_id, max_tokens),
              .max_tokens = max_tokens,
              .num_prompt_tokens = static_cast<int32_t>(tokens.size())});
  request->samples.resize(static_cast<size_t>(params.n));
  if (params.prompt_logprobs) request->prompt_logprobs.resize(tokens.size() - 1);
  request->times.queued = monotonic_seconds();
  for (size_t i = 0; i < request->samples.size(); ++i) {
    request->samples[i].request = request.get();
    request->samples[i].index = static_cast<int32_t>(i);
  }
  counters.num_prompt_tokens += request->num_prompt_tokens;
  return *requests.emplace(id, std::move(request)).first->second;
}

void Engine::Impl::enqueue(Request& request, std::span<const int32_t> prompt,
                           std::string_view cache_salt, std::shared_ptr<GrammarJob> grammar) {
  const auto prompt_len = static_cast<int32_t>(prompt.size());
  std::string salt(cache_salt);
  const std::string model_salt = loaded.runner->prefix_salt(prompt_len);
  if (!model_salt.empty()) salt += '\0' + model_salt;
  Sequence* sequence = new_sequence(request.samples.front(), prompt, prompt_len, salt);
  if (grammar) {
    start_grammar(request, std::move(grammar));
  } else {
    scheduler.add(sequence);
  }
}

Sequence* Engine::Impl::new_sequence(Sample& sample, std::span<const int32_t> tokens,
                                     int32_t prompt_len, std::string_view salt) {
  sample.sequence = std::make_unique<Sequence>(
      next_sequence_id++, std::vector<int32_t>(tokens.begin(), tokens.end()), std::string(salt));
  sample.sequence->prompt_len = prompt_len;  // a fork's tokens begin with its parent's prompt
  const Request& request = *sample.request;
  sample.sequence->reads_prefix_cache =
      (!request.params.prompt_logprobs && !request.params.skip_reading_prefix_cache) ||
      request.prompt_computed;
  sample.edits = std::make_unique<EditState>(request.params, tokens);
  if (request.params.repetition_detection.max_pattern_size > 0) {
    sample.repetition = std::make_unique<RepetitionDetector>(request.params.repetition_detection,
                                                             request.max_tokens);
  }
  set_custom(sample);
  samples_by_sequence.emplace(sample.sequence->id, &sample);
  return sample.sequence.get();
}

void Engine::Impl::set_custom(Sample& sample) {
  if (sample.request->params.logits_processors.empty()) return;
  sample.custom = [&sample](std::span<float> logits) { return run_processors(sample, logits); };
}

Sample& Engine::Impl::find_sample(RequestId id, int32_t sample_index) {
  const auto found = requests.find(id);
  if (found == requests.end()) {
    throw InvalidArgument(str_cat("request ", id, " is not in flight; expected one that is"));
  }
  std::vector<Sample>& samples = found->second->samples;
  if (sample_index < 0 || static_cast<size_t>(sample_index) >= samples.size() ||
      samples[static_cast<size_t>(sample_index)].sequence == nullptr) {
    throw InvalidArgument(str_cat("sample ", sample_index, " of request ", id,
                                  " is not in flight; expected one that is"));
  }
  return samples[static_cast<size_t>(sample_index)];
}

LogprobRequest Engine::Impl::logprob_request(const Request& request) const {
  const SamplingParams& params = request.params;
  if (request.beams) {
    return {.wanted = true, .processed = true, .top = request.beams->candidates_per_beam()};
  }
  return {.wanted = params.logprobs.has_value() || !params.logprob_token_ids.empty(),
          .processed = config.logprobs_mode.starts_with("processed"),
          .logits = config.logprobs_mode.ends_with("logits"),
          .top = params.logprobs.value_or(0),
          .ids = params.logprob_token_ids};
}

SampleRow Engine::Impl::sample_row(Sample& sample) const {
  const Request& request = *sample.request;
  const SamplingParams& params = request.params;
  LogitEdits edits = sample.edits->edits(request.stop.banned(request.num_generated(sample)));
  if (sample.custom) edits.custom = &sample.custom;
  const bool greedy = params.greedy() || request.beams != nullptr;
  return {.temperature = greedy ? 0.0f : params.temperature,
          .top_p = params.top_p,
          .min_p = params.min_p,
          .top_k = std::max(params.top_k, 0),
          .seed = request.seed,
          .sample_index = static_cast<uint32_t>(sample.index),
          .position = static_cast<uint32_t>(sample.sequence->tokens.size()),
          .edits = edits,
          .logprobs = logprob_request(request)};
}

// The row of each prompt token scores the token after it.
void Engine::Impl::add_prompt_rows(const ScheduledSequence& scheduled, int32_t first_row,
                                   Sample& sample, StepRows& rows) const {
  const Request& request = *sample.request;
  const LogprobRequest wanted{.wanted = true,
                              .logits = config.logprobs_mode.ends_with("logits"),
                              .top = request.params.prompt_logprobs.value_or(0)};
  for (int32_t i = 0; i < static_cast<int32_t>(scheduled.tokens.size()); ++i) {
    const int32_t position = scheduled.num_computed + i + 1;
    if (position >= request.num_prompt_tokens) return;
    rows.selected.push_back(first_row + i);
    rows.rows.push_back(
        {.logprobs = wanted, .given = sample.sequence->tokens[static_cast<size_t>(position)]});
    rows.samples.push_back(&sample);
    rows.prompt_positions.push_back(position);
  }
}

Engine::Impl::StepRows Engine::Impl::step_rows(const StepPlan& plan) {
  StepRows rows;
  const size_t most = plan.sequences.size();  // but for rows of prompts
  rows.selected.reserve(most);
  rows.rows.reserve(most);
  rows.samples.reserve(most);
  rows.prompt_positions.reserve(most);
  const double now = monotonic_seconds();
  int32_t end_row = 0;
  for (const ScheduledSequence& scheduled : plan.sequences) {
    const int32_t first_row = end_row;
    end_row += static_cast<int32_t>(scheduled.tokens.size());
    Sample& sample = *samples_by_sequence.at(scheduled.sequence_id);
    Request& request = *sample.request;
    if (request.times.scheduled == 0) request.times.scheduled = now;
    if (request.params.prompt_logprobs && !request.prompt_computed) {
      add_prompt_rows(scheduled, first_row, sample, rows);
    }
    if (!scheduled.samples) continue;
    rows.selected.push_back(end_row - 1);
    rows.rows.push_back(sample_row(sample));
    rows.samples.push_back(&sample);
    rows.prompt_positions.push_back(-1);
  }
  return rows;
}

std::vector<RequestOutput> Engine::Impl::run(const StepPlan& plan) {
  ++counters.num_steps;
  counters.num_scheduled_tokens += plan.num_tokens;
  metrics.on_step(plan.num_tokens);
  StepRows rows;
  try {
    rows = step_rows(plan);
    start_masks(rows);
    loaded.runner->launch(plan, rows.selected, rows.rows, [&] { finish_masks(rows); });
    return collect(plan, rows, loaded.runner->collect());
  } catch (const std::exception& error) {
    mask_filler.wait();  // the masks belong to samples that are about to end
    return fail(plan, error.what());
  }
}

std::vector<RequestOutput> Engine::Impl::collect(const StepPlan& plan, const StepRows& rows,
                                                 std::span<const int32_t> tokens) {
  scheduler.complete(plan);
  step_end = monotonic_seconds();
  const std::span<TokenLogprobs> logprobs = loaded.runner->logprobs();
  std::vector<RequestOutput> outputs;
  outputs.reserve(rows.rows.size());
  for (size_t row = 0; row < rows.rows.size(); ++row) {
    Sample& sample = *rows.samples[row];
    Request& request = *sample.request;
    if (const int32_t position = rows.prompt_positions[row]; position >= 0) {
      request.prompt_failed = request.prompt_failed || tokens[row] < 0;
      request.prompt_logprobs[static_cast<size_t>(position - 1)] = std::move(logprobs[row]);
      continue;
    }
    if (request.beams) {
      offer(sample, tokens[row], std::move(logprobs[row]), outputs);
      continue;
    }
    std::vector<TokenLogprobs> prompt_logprobs;
    if (!request.prompt_computed) {
      fork_samples(request);
      prompt_logprobs = std::move(request.prompt_logprobs);
    }
    outputs.push_back(advance(sample, request.prompt_failed ? -1 : tokens[row]));
    outputs.back().prompt_logprobs = std::move(prompt_logprobs);
    if (!outputs.back().new_token_ids.empty() && rows.rows[row].logprobs.wanted) {
      outputs.back().logprobs.push_back(std::move(logprobs[row]));
    }
  }
  return outputs;
}

// The prompt of `request` is computed: its other samples begin on its blocks, each by computing the
// last prompt token once more, for logits of its own.
void Engine::Impl::fork_samples(Request& request) {
  request.prompt_computed = true;
  const Sequence& leader = *request.samples.front().sequence;
  request.num_cached_tokens = std::max(leader.num_cached_tokens, 0);
  metrics.on_prompt_computed(request.num_prompt_tokens, request.num_cached_tokens);
  for (size_t i = request.samples.size();
       i-- > 1;) {  // backwards: each goes right behind the leader
    Sample& sample = request.samples[i];
    if (sample.finished) continue;
    Sequence* child = new_sequence(sample, leader.tokens, leader.prompt_len, leader.cache_salt);
    make_matcher(sample);
    scheduler.fork(leader, child);
  }
}

RequestOutput Engine::Impl::advance(Sample& sample, int32_t token) {
  Request& request = *sample.request;
  RequestOutput output{.request_id = request.id,
                       .sample_index = sample.index,
                       .num_cached_tokens = request.num_cached_tokens};
  if (token >= 0 && request.params.max_tokens == 0) {
    output.finish_reason = FinishReason::kLength;
  } else if (token < 0) {
    end_without_token(sample, output);
  } else {
    append_token(sample, token, output);
  }
  if (output.finished()) end_sample(sample);
  output.times = request.times;
  output.request_finished = request.finished();
  if (output.request_finished) forget(request.id, output.finish_reason);
  return output;
}

void Engine::Impl::append_token(Sample& sample, int32_t token, RequestOutput& output) {
  Request& request = *sample.request;
  if (sample.matcher && !sample.matcher->accept(token)) {
    output.finish_reason = FinishReason::kError;
    output.error = str_cat("structured_outputs: the structure has no way on with token ", token,
                           "; expected one that its mask allows");
    return;
  }
  sample.sequence->tokens.push_back(token);
  sample.edits->append(token);
  output.new_token_ids.push_back(token);
  ++counters.num_generated_tokens;
  record_token(sample);
  const int32_t num_generated = request.num_generated(sample);
  const StopCondition::Verdict verdict = request.stop.check(token, num_generated);
  output.finish_reason = verdict.reason;
  output.stop_token_id = verdict.stop_token_id;
  if (sample.matcher && sample.matcher->terminated() && verdict.reason != FinishReason::kStop) {
    output.finish_reason = FinishReason::kStop;  // an end token that the request ignores otherwise
  }
  const bool repeats =
      sample.repetition && sample.repetition->append(request.output_tokens(sample));
  if (repeats && !output.finished() && num_generated >= request.params.min_tokens) {
    output.finish_reason = FinishReason::kRepetition;
  }
}

// The drawing gave no token.
void Engine::Impl::end_without_token(const Sample& sample, RequestOutput& output) const {
  const bool nothing_follows =
      sample.matcher && sample.error.empty() && sample.matcher->completed() &&
      std::ranges::all_of(sample.mask, [](uint32_t word) { return word == 0; });
  output.finish_reason = nothing_follows ? FinishReason::kStop : FinishReason::kError;
  if (nothing_follows) return;
  output.error = !sample.error.empty() ? sample.error
                 : sample.matcher
                     ? "structured_outputs: no token is left that the other parameters allow too, "
                       "or the logits hold a NaN; expected at least one"
                     : "logits: NaN, or nothing left to sample; expected at least one finite value";
}

// The step could not run: its sequences end with the error, all others go on.
std::vector<RequestOutput> Engine::Impl::fail(const StepPlan& plan, const std::string& error) {
  blocks.reset_prefix_cache();  // it knows blocks that the step was to fill
  std::vector<RequestOutput> outputs;
  for (const ScheduledSequence& scheduled : plan.sequences) {
    const auto found = samples_by_sequence.find(scheduled.sequence_id);
    if (found == samples_by_sequence.end()) continue;  // ended with its request's first sample
    fail_request(*found->second->request, error, outputs);
  }
  if (scheduler.step_in_flight()) scheduler.complete(plan);
  return outputs;
}

void Engine::Impl::fail_request(Request& request, const std::string& error,
                                std::vector<RequestOutput>& outputs) {
  for (Sample& sample : request.samples) {
    if (sample.finished) continue;
    end_sample(sample);
    if (request.beams && sample.index > 0) continue;  // they are one result
    outputs.push_back({.request_id = request.id,
                       .sample_index = sample.index,
                       .finish_reason = FinishReason::kError,
                       .error = error,
                       .request_finished = request.beams != nullptr || request.finished(),
                       .times = request.times});
  }
  forget(request.id, FinishReason::kError);
}

void Engine::Impl::end_sample(Sample& sample) {
  sample.finished = true;
  if (sample.sequence == nullptr) return;
  sample.request->times.num_preemptions += sample.sequence->num_preemptions;
  scheduler.remove(sample.sequence.get());
  samples_by_sequence.erase(sample.sequence->id);
  sample.sequence.reset();
  sample.edits.reset();
  sample.repetition.reset();
  sample.matcher.reset();
  sample.mask = {};
  sample.custom = nullptr;
}

void Engine::Impl::forget(RequestId id, FinishReason reason) {
  record_end(*requests.at(id), reason);
  requests.erase(id);
  ++(reason == FinishReason::kAbort ? counters.num_requests_aborted
                                    : counters.num_requests_finished);
}

void Engine::Impl::run_logits_chunk(std::span<const int32_t> tokens, int32_t begin, int32_t end,
                                    BlockTable& table, float* out) {
  StepPlan plan;
  if (!blocks.grow(table, begin, end, plan.copies)) {
    throw OutOfMemory(str_cat("compute_logits: ", tokens.size(),
                              " tokens need more KV blocks than the ", blocks.num_blocks_free(),
                              " that are free; expected fewer tokens, or "
                              "fewer requests in flight"));
  }
  plan.sequences.push_back(
      {.sequence_id = -1,
       .tokens = tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
       .num_computed = begin,
       .prompt_len = static_cast<int32_t>(tokens.size()),
       .block_table = table.ids(),
       .samples = false});
  plan.num_tokens = end - begin;
  loaded.runner->compute_logits(plan, out);
}

}  // namespace octavo
