// The state of an engine and the work of its steps. Owned by Engine, whose public methods take the
// mutex; everything here but lock() runs under it, on whichever thread called.
#pragma once

#include <unistd.h>

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
#include "engine/model_loading.h"
#include "engine/request.h"
#include "octavo/engine.h"
#include "sched/scheduler.h"

namespace octavo {

struct Engine::Impl {
  explicit Impl(const EngineConfig& config);

  std::unique_lock<std::mutex> lock() const;

  void check_vocabulary(std::span<const int32_t> ids) const;
  int32_t check_prompt(std::span<const int32_t> prompt, const SamplingParams& params) const;
  void check_logprobs(std::optional<int32_t> count, const char* kind) const;
  LogprobRequest logprob_request(const SamplingParams& params) const;
  int64_t kv_capacity() const { return loaded.info.num_kv_blocks * loaded.info.block_size; }
  Request& new_request(std::span<const int32_t> tokens, const SamplingParams& params,
                       int32_t max_tokens);
  Sequence* new_sequence(Sample& sample, std::span<const int32_t> tokens, int32_t prompt_len,
                         std::string_view salt);
  Sample& find_sample(RequestId id, int32_t sample_index);

  // What the logits of a step's rows are for, in parallel lists.
  struct StepRows {
    std::vector<int32_t> selected;  // rows of the batch
    std::vector<SampleRow> rows;
    std::vector<Sample*> samples;
    std::vector<int32_t> prompt_positions;  // of the prompt token that is scored; -1: one is drawn
  };

  StepRows step_rows(const StepPlan& plan);
  void add_prompt_rows(const ScheduledSequence& scheduled, int32_t first_row, Sample& sample,
                       StepRows& rows) const;
  SampleRow sample_row(Sample& sample) const;
  std::vector<RequestOutput> collect(const StepPlan& plan, const StepRows& rows,
                                     std::span<const int32_t> tokens);
  std::vector<RequestOutput> fail(const StepPlan& plan, const std::string& error);
  void fork_samples(Request& request);
  RequestOutput advance(Sample& sample, int32_t token);
  void end_sample(Sample& sample);
  void forget(RequestId id, bool aborted);
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
  RequestId next_request_id = 0;
  int64_t next_sequence_id = 0;
  EngineStats counters;
};

}  // namespace octavo
