#include "runner/model_runner.h"

#include <algorithm>

#include "backend/null.h"
#include "base/check.h"

namespace octavo {

ModelRunner::ModelRunner(Backend& backend, std::unique_ptr<Model> model, DType weights,
                         DType kv_dtype, const RunnerLimits& limits)
    : backend_(backend),
      model_(std::move(model)),
      activation_dtype_(backend.activation_dtype(weights)),
      kv_dtype_(kv_dtype),
      limits_(limits),
      inputs_(backend, limits.max_tokens, limits.max_selected, limits.block_size) {
  arena_ = Arena(allocate_for(str_cat("workspace of a step of ", limits_.max_tokens,
                                      " tokens (max_num_batched_tokens) and ", limits_.max_selected,
                                      " sequences (max_num_seqs)"),
                              backend_, measure_workspace()));
  next_ids_ = backend_.allocate(static_cast<size_t>(limits_.max_selected) * sizeof(int32_t));
  host_ids_.reserve(static_cast<size_t>(limits_.max_selected));
}

KvShape ModelRunner::kv_shape() const {
  return {.block_size = limits_.block_size,
          .kv_heads = static_cast<int32_t>(shape().num_kv_heads),
          .head_dim = static_cast<int32_t>(shape().head_dim),
          .dtype = kv_dtype_};
}

size_t ModelRunner::kv_block_bytes() const {
  return backend_.kv_block_bytes(kv_shape()) * static_cast<size_t>(shape().num_layers);
}

void ModelRunner::allocate_kv(int64_t num_blocks) {
  kv_ = std::make_unique<KvStorage>(backend_, kv_shape(), shape().num_layers, num_blocks);
}

std::string ModelRunner::prefix_salt(int64_t prompt_len) const {
  const Rotary* rotary = model_->rotary();
  return rotary == nullptr ? std::string() : rotary->prefix_salt(prompt_len);
}

ForwardContext ModelRunner::make_context(Backend& backend, Arena& arena) const {
  return {.backend = backend,
          .arena = arena,
          .dtype = activation_dtype_,
          .num_tokens = inputs_.num_tokens(),
          .token_ids = inputs_.token_ids(),
          .positions = inputs_.positions(),
          .slots = inputs_.slots(),
          .rotary_rows = inputs_.rotary_rows(),
          .selected_rows = inputs_.selected_rows()};
}

Tensor ModelRunner::allocate_logits(Arena& arena, int64_t rows) const {
  return arena.allocate(DType::kFloat32, {rows, shape().vocab_size});
}

// Runs the largest step on nothing and asks how much it would have used.
size_t ModelRunner::measure_workspace() const {
  NullBackend nothing;
  Arena arena;
  ForwardContext context = make_context(nothing, arena);
  context.num_tokens = limits_.max_tokens;
  context.selected_rows = Tensor(nullptr, DType::kInt32, {limits_.max_selected});
  const Tensor logits = allocate_logits(arena, limits_.max_selected);
  const std::vector<KvLayer> kv(static_cast<size_t>(shape().num_layers));
  model_->forward(context, kv, logits);
  return arena.peak_bytes();
}

Tensor ModelRunner::forward(const StepPlan& plan, bool all_rows) {
  OCTAVO_CHECK(kv_ != nullptr, "model runner: allocate_kv was not called");
  inputs_.fill(plan, model_->rotary(), all_rows);
  std::vector<BlockCopy> copies;
  for (const CopiedBlock& copy : plan.copies) copies.push_back({copy.source, copy.target});
  if (!copies.empty()) backend_.copy_blocks(kv_->layers(), copies);
  backend_.begin_step(inputs_.meta());
  arena_.reset();
  const Tensor logits = allocate_logits(arena_, inputs_.num_selected());
  model_->forward(make_context(backend_, arena_), kv_->layers(), logits);
  return logits;
}

void ModelRunner::launch(const StepPlan& plan, std::span<const SampleRow> rows) {
  const Tensor logits = forward(plan, false);
  OCTAVO_CHECK(logits.dim(0) == static_cast<int64_t>(rows.size()));
  host_ids_.resize(rows.size());
  const bool any =
      std::ranges::any_of(rows, [](const SampleRow& row) { return row.logprobs.wanted; });
  logprobs_.assign(any ? rows.size() : 0, {});
  if (rows.empty()) return;
  const Tensor ids(next_ids_.data(), DType::kInt32, {logits.dim(0)});
  backend_.sample({.logits = logits, .rows = rows, .out = ids, .logprobs = logprobs_});
}

std::span<const int32_t> ModelRunner::collect() {
  if (!host_ids_.empty()) {
    const auto count = static_cast<int64_t>(host_ids_.size());
    backend_.copy_to_host(host_ids_.data(), Tensor(next_ids_.data(), DType::kInt32, {count}));
  }
  return host_ids_;
}

void ModelRunner::compute_logits(const StepPlan& plan, float* out) {
  backend_.copy_to_host(out, forward(plan, true));
}

}  // namespace octavo
