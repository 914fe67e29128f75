// The state of an engine and the work of its steps. Owned by Engine, whose public methods take the
// mutex; everything here but lock() runs under it, on whichever thread called.
#pragma once

#include <unistd.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backend/op_args.h"
#include "cache/block_manager.h"
#include "engine/metrics_recorder.h"
#include "engine/model_loading.h"
#include "engine/request.h"
#include "engine/sleep_state.h"
#include "grammar/grammar_compiler.h"
#include "grammar/mask_filler.h"
#include "octavo/engine.h"
#include "sched/scheduler.h"

namespace octavo {

struct Engine::Impl {
  explicit Impl(const EngineConfig& config);

  void check_process() const;
  std::unique_lock<std::mutex> lock() const;

  void check_vocabulary(std::span<const int32_t> ids) const;
  int32_t check_prompt(std::span<const int32_t> prompt, const SamplingParams& params) const;
  void check_logprobs(std::optional<int32_t> count, const char* kind) const;
  // The grammar of the structured outputs, none without. From any thread, without the lock.
  std::shared_ptr<GrammarJob> submit_grammar(const SamplingParams& params) const;
  LogprobRequest logprob_request(const Request& request) const;
  int64_t kv_capacity() const { return loaded.info.num_kv_blocks * loaded.info.block_size; }
  Request& new_request(std::span<const int32_t> tokens, const SamplingParams& params,
                       int32_t max_tokens);
  // Puts a new request into the scheduler, or lets it wait for its grammar.
  void enqueue(Request& request, std::span<const int32_t> prompt, std::string_view cache_salt,
               std::shared_ptr<GrammarJob> grammar);
  Sequence* new_sequence(Sample& sample, std::span<const int32_t> tokens, int32_t prompt_len,
                         std::string_view salt);
  void set_custom(Sample& sample);
  Sample& find_sample(RequestId id, int32_t sample_index);

  // What the logits of a step's rows are for, in parallel lists.
  struct StepRows {
    std::vector<int32_t> selected;  // rows of the batch
    std::vector<SampleRow> rows;
    std::vector<Sample*> samples;
    std::vector<int32_t> prompt_positions;  // of the prompt token that is scored; -1: one is drawn
  };

  std::vector<RequestOutput> run(const StepPlan& plan);
  StepRows step_rows(const StepPlan& plan);
  void add_prompt_rows(const ScheduledSequence& scheduled, int32_t first_row, Sample& sample,
                       StepRows& rows) const;
  SampleRow sample_row(Sample& sample) const;
  std::vector<RequestOutput> collect(const StepPlan& plan, const StepRows& rows,
                                     std::span<const int32_t> tokens);
  std::vector<RequestOutput> fail(const StepPlan& plan, const std::string& error);
  void fork_samples(Request& request);
  RequestOutput advance(Sample& sample, int32_t token);
  void append_token(Sample& sample, int32_t token, RequestOutput& output);
  void end_without_token(const Sample& sample, RequestOutput& output) const;
  void fail_request(Request& request, const std::string& error,
                    std::vector<RequestOutput>& outputs);
  void end_sample(Sample& sample);
  void forget(RequestId id, FinishReason reason);

  // Beam search, engine_beams.cc.
  struct BeamEnd;
  int32_t check_beams(std::span<const int32_t> prompt, const BeamSearchParams& params) const;
  void start_beams(Request& request, const BeamSearchParams& params);
  std::string_view token_text(int32_t token) const;
  void offer(Sample& sample, int32_t token, TokenLogprobs candidates,
             std::vector<RequestOutput>& outputs);
  BeamEnd beam_end(const Request& request, int32_t beam, int32_t token) const;
  std::vector<BeamCandidate> candidates_of(const Request& request, int32_t beam,
                                           std::span<const int32_t> taken) const;
  std::vector<BeamCandidate> beam_candidates(const Request& request, int32_t group,
                                             std::span<const int32_t> taken) const;
  Beam finished_beam(const Request& request, int32_t group, const BeamCandidate& candidate) const;
  void advance_beams(Request& request, std::vector<RequestOutput>& outputs);
  void keep_complete_beams(Request& request);
  void place_beams(Request& request, std::span<const std::pair<int32_t, BeamCandidate>> next);
  std::pair<Sample, LiveBeam> fork_beam(Request& request, const BeamCandidate& candidate);
  void extend_beam(Sample& sample, LiveBeam& live, const BeamCandidate& candidate);
  void seat_beam(Request& request, int32_t slot, std::pair<Sample, LiveBeam> child);
  Beam best_live_beam(const Request& request) const;
  void finish_beams(Request& request, RequestOutput& output);

  // Figures, engine_metrics.cc.
  void record_token(Sample& sample);
  void record_end(const Request& request, FinishReason reason);

  // Structured outputs, engine_structure.cc.
  void start_grammar(Request& request, std::shared_ptr<GrammarJob> grammar);
  std::vector<RequestOutput> admit_compiled();
  void make_matcher(Sample& sample) const;
  void start_masks(StepRows& rows);
  void finish_masks(StepRows& rows);

  void run_logits_chunk(std::span<const int32_t> tokens, int32_t begin, int32_t end,
                        BlockTable& table, float* out);

  const EngineConfig config;
  const pid_t owner = getpid();
  mutable std::mutex mutex;
  LoadedModel loaded;
  BlockManager blocks;
  Scheduler scheduler;
  std::map<RequestId, std::unique_ptr<Request>> requests;
  std::unordered_map<int64_t, Sample*> samples_by_sequence;
  std::condition_variable compiled;  // a grammar is ready, or has failed
  mutable GrammarCompiler grammars;  // has locks of its own
  MaskFiller mask_filler;
  std::vector<MaskFiller::Job> mask_jobs;                       // of the step in progress
  std::vector<size_t> mask_rows;                                // which of its rows they are
  std::vector<RequestId> awaiting_grammar;                      // not in the scheduler yet
  std::shared_ptr<const std::vector<std::string>> token_texts;  // none without a vocabulary
  RequestId next_request_id = 0;
  int64_t next_sequence_id = 0;
  EngineStats counters;
  MetricsRecorder metrics{loaded.info, config.enable_prefix_caching};
  SleepState asleep;
  double step_end = 0;  // of the last step, in seconds of RequestTimes' clock
};

}  // namespace octavo
