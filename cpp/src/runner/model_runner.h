// Runs step plans on a model: owns the model, the KV cache's memory, the workspace and the step's
// inputs. Owned by the engine, used on the step thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "models/registry.h"
#include "runner/kv_storage.h"
#include "runner/step_inputs.h"
#include "weights/checkpoint.h"

namespace octavo {

struct RunnerLimits {
  int64_t max_tokens = 0;  // rows of one step
  int32_t block_size = 16;
};

class ModelRunner {
 public:
  // Measures the workspace; the KV cache comes by allocate_kv, when its size is known.
  ModelRunner(Backend& backend, std::unique_ptr<Model> model, DType weights, DType kv_dtype,
              const RunnerLimits& limits);

  const ModelShape& shape() const { return shape_; }
  // An additional prefix-cache salt for prompts of this length; usually empty.
  std::string prefix_salt(int64_t prompt_len) const;
  size_t workspace_bytes() const { return arena_.capacity_bytes(); }
  // Bytes of one block over all layers.
  size_t kv_block_bytes() const;
  void allocate_kv(int64_t num_blocks);

  // Gives memory back: the KV cache with its contents, or the weights and the workspace. No step
  // runs until both are there again; the shape and the salts stay known.
  void release_kv();
  void release_model();
  // Takes a model of the same shape and the workspace again. Throws OutOfMemory, and then has
  // neither.
  void restore_model(std::unique_ptr<Model> model);

  // Runs a step. Row selected[i] of the batch (the plan's tokens in its order) gives its logits to
  // rows[i], which tells how they become a token. `before_sampling` is called when the forward pass
  // has been launched; it may still change the rows.
  void launch(const StepPlan& plan, std::span<const int32_t> selected,
              std::span<const SampleRow> rows, const std::function<void()>& before_sampling);
  // Waits for the launched step: one id for each of its rows, or -1 where the logits hold a NaN.
  std::span<const int32_t> collect();
  // After collect: the log-probabilities of each row, those that wanted none empty.
  std::span<TokenLogprobs> logprobs() { return logprobs_; }

  // Runs a step and copies the logits of every row to `out`, float32 [plan.num_tokens, vocab_size].
  void compute_logits(const StepPlan& plan, float* out);

 private:
  void allocate_workspace();
  KvShape kv_shape() const;
  ForwardContext make_context(Backend& backend, Arena& arena) const;
  // What precedes a forward pass; `padded_rows` as in StepInputs::fill.
  void prepare(const StepPlan& plan, std::span<const int32_t> selected, int64_t padded_rows);
  // The batch's hidden states [tokens, hidden_size].
  Tensor forward();
  // The logits of a step that may be replayed, float32 [padded rows, vocab_size].
  Tensor replay();
  // How many rows a plan is padded to, when it is one that a device may replay; else 0.
  int64_t padded_rows(const StepPlan& plan, std::span<const int32_t> selected) const;
  // Samples rows [begin, begin + logits' rows) of the step.
  void sample(int64_t begin, const Tensor& logits, std::span<const SampleRow> rows);
  // Calls `take(begin, logits)` for the selected rows from `begin` on, some at a time, until all
  // have been computed; logits is float32 [rows, vocab_size].
  template <typename Take>
  void for_each_logits(const Tensor& hidden, const Take& take);
  size_t measure_workspace() const;

  Backend& backend_;
  std::unique_ptr<Model> model_;  // null while released
  const ModelShape shape_;
  std::optional<RopeConfig> rope_;
  DType activation_dtype_;
  DType kv_dtype_;
  RunnerLimits limits_;
  Arena arena_;
  StepInputs inputs_;
  std::unique_ptr<KvStorage> kv_;
  Buffer next_ids_;                      // int32 [max_tokens]
  std::vector<TokenLogprobs> logprobs_;  // [rows of the launched step], empty when none wants any
  std::vector<int32_t> host_ids_;        // of the launched step
};

}  // namespace octavo
