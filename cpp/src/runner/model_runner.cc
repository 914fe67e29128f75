#include "runner/model_runner.h"

#include <algorithm>
#include <numeric>

#include "backend/null.h"
#include "base/check.h"

namespace octavo {

ModelRunner::ModelRunner(Backend& backend, std::unique_ptr<Model> model, DType weights,
                         DType kv_dtype, const RunnerLimits& limits)
    : backend_(backend),
      model_(std::move(model)),
      shape_(model_->shape()),
      activation_dtype_(backend.activation_dtype(weights)),
      kv_dtype_(kv_dtype),
      limits_(limits),
      inputs_(backend, limits.max_tokens, limits.block_size) {
  if (model_->rotary() != nullptr) rope_ = model_->rotary()->config();
  allocate_workspace();
  next_ids_ = backend_.allocate(static_cast<size_t>(limits_.max_tokens) * sizeof(int32_t));
  host_ids_.reserve(static_cast<size_t>(limits_.max_tokens));
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

void ModelRunner::allocate_workspace() {
  arena_ = Arena(allocate_for(
      str_cat("workspace of a step of ", limits_.max_tokens, " tokens (max_num_batched_tokens)"),
      backend_, measure_workspace()));
}

void ModelRunner::release_kv() {
  backend_.forget_replays();
  kv_.reset();
}

void ModelRunner::release_model() {
  backend_.forget_replays();
  model_.reset();
  arena_ = Arena();
}

void ModelRunner::restore_model(std::unique_ptr<Model> model) {
  OCTAVO_CHECK(model_ == nullptr, "model runner: restore_model of a model that is there");
  model_ = std::move(model);
  try {
    allocate_workspace();
  } catch (...) {
    model_.reset();
    throw;
  }
}

std::string ModelRunner::prefix_salt(int64_t prompt_len) const {
  return rope_ ? rope_->prefix_salt(prompt_len) : std::string();
}

ForwardContext ModelRunner::make_context(Backend& backend, Arena& arena) const {
  return {.backend = backend,
          .arena = arena,
          .dtype = activation_dtype_,
          .num_tokens = inputs_.num_tokens(),
          .token_ids = inputs_.token_ids(),
          .positions = inputs_.positions(),
          .slots = inputs_.slots(),
          .rotary_rows = inputs_.rotary_rows()};
}

// Runs the largest steps on nothing and asks how much they would have used.
size_t ModelRunner::measure_workspace() const {
  NullBackend nothing;
  Arena arena;
  ForwardContext context = make_context(nothing, arena);
  const std::vector<KvLayer> kv(static_cast<size_t>(shape().num_layers));
  const int64_t rows = std::min(limits_.max_tokens, backend_.logits_rows());
  const auto run = [&](int64_t tokens, bool logits_first) {
    arena.reset();
    context.num_tokens = tokens;
    const Tensor hidden = context.activations(tokens, shape().hidden_size);
    Tensor logits;
    const auto allocate_logits = [&] {
      logits = arena.allocate(DType::kFloat32, {rows, shape().vocab_size});
    };
    if (logits_first) allocate_logits();
    model_->forward(context, kv, hidden);
    if (!logits_first) allocate_logits();
    model_->compute_logits(context, hidden, Tensor(nullptr, DType::kInt32, {rows}), logits);
  };
  run(limits_.max_tokens, false);
  if (backend_.padded_rows(1) != 0) run(rows, true);  // a replayed step's logits come first
  return arena.peak_bytes();
}

void ModelRunner::prepare(const StepPlan& plan, std::span<const int32_t> selected,
                          int64_t padded_rows) {
  OCTAVO_CHECK(model_ != nullptr, "model runner: the model has been released");
  OCTAVO_CHECK(kv_ != nullptr, "model runner: allocate_kv was not called");
  inputs_.fill(plan, model_->rotary(), selected, padded_rows);
  std::vector<BlockCopy> copies;
  for (const CopiedBlock& copy : plan.copies) copies.push_back({copy.source, copy.target});
  if (!copies.empty()) backend_.copy_blocks(kv_->layers(), copies);
  backend_.begin_step(inputs_.meta());
  arena_.reset();
}

Tensor ModelRunner::forward() {
  const ForwardContext context = make_context(backend_, arena_);
  const Tensor hidden = context.activations(context.num_tokens, shape().hidden_size);
  model_->forward(context, kv_->layers(), hidden);
  return hidden;
}

int64_t ModelRunner::padded_rows(const StepPlan& plan, std::span<const int32_t> selected) const {
  const auto rows = static_cast<int64_t>(plan.sequences.size());
  const bool one_row_each = plan.num_tokens == rows;
  if (!one_row_each || selected.size() != plan.sequences.size()) return 0;
  const int64_t padded = backend_.padded_rows(rows);
  return padded <= std::min(limits_.max_tokens, backend_.logits_rows()) ? padded : 0;
}

Tensor ModelRunner::replay() {
  const ForwardContext context = make_context(backend_, arena_);
  const int64_t rows = context.num_tokens;
  const Tensor hidden = context.activations(rows, shape().hidden_size);
  const Tensor logits = arena_.allocate(DType::kFloat32, {rows, shape().vocab_size});
  backend_.replay({.rows = rows, .block_columns = inputs_.block_columns()}, [&] {
    model_->forward(context, kv_->layers(), hidden);
    model_->compute_logits(context, hidden, inputs_.selected_rows(), logits);
  });
  return logits;
}

template <typename Take>
void ModelRunner::for_each_logits(const Tensor& hidden, const Take& take) {
  const ForwardContext context = make_context(backend_, arena_);
  const int64_t selected = inputs_.num_selected();
  const int64_t most = backend_.logits_rows();
  for (int64_t begin = 0; begin < selected; begin += most) {
    const Arena::Scope scope(arena_);
    const int64_t end = std::min(begin + most, selected);
    const Tensor logits = arena_.allocate(DType::kFloat32, {end - begin, shape().vocab_size});
    model_->compute_logits(context, hidden, inputs_.selected_rows().rows(begin, end), logits);
    take(begin, logits);
  }
}

void ModelRunner::sample(int64_t begin, const Tensor& logits, std::span<const SampleRow> rows) {
  const auto first = static_cast<size_t>(begin), count = static_cast<size_t>(logits.dim(0));
  const Tensor ids(next_ids_.as<int32_t>() + begin, DType::kInt32, {logits.dim(0)});
  std::span<TokenLogprobs> logprobs(logprobs_);
  if (!logprobs.empty()) logprobs = logprobs.subspan(first, count);
  backend_.sample(
      {.logits = logits, .rows = rows.subspan(first, count), .out = ids, .logprobs = logprobs});
}

void ModelRunner::launch(const StepPlan& plan, std::span<const int32_t> selected,
                         std::span<const SampleRow> rows,
                         const std::function<void()>& before_sampling) {
  OCTAVO_CHECK(selected.size() == rows.size());
  const bool any =
      std::ranges::any_of(rows, [](const SampleRow& row) { return row.logprobs.wanted; });
  host_ids_.resize(rows.size());
  logprobs_.assign(any ? rows.size() : 0, {});
  const int64_t padded = padded_rows(plan, selected);
  prepare(plan, selected, padded);
  if (padded != 0) {
    const Tensor logits = replay();
    before_sampling();
    sample(0, logits.rows(0, static_cast<int64_t>(rows.size())), rows);
    return;
  }
  const Tensor hidden = forward();
  before_sampling();
  for_each_logits(hidden,
                  [&](int64_t begin, const Tensor& logits) { sample(begin, logits, rows); });
}

std::span<const int32_t> ModelRunner::collect() {
  if (!host_ids_.empty()) {
    const auto count = static_cast<int64_t>(host_ids_.size());
    backend_.copy_to_host(host_ids_.data(), Tensor(next_ids_.data(), DType::kInt32, {count}));
  }
  return host_ids_;
}

void ModelRunner::compute_logits(const StepPlan& plan, float* out) {
  std::vector<int32_t> all(static_cast<size_t>(plan.num_tokens));
  std::iota(all.begin(), all.end(), 0);
  prepare(plan, all, 0);
  for_each_logits(forward(), [&](int64_t begin, const Tensor& logits) {
    backend_.copy_to_host(out + begin * shape().vocab_size, logits);
  });
}

}  // namespace octavo
