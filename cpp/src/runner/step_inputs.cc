#include "runner/step_inputs.h"

#include <algorithm>

#include "base/check.h"

namespace octavo {

StepInputs::StepInputs(Backend& backend, int64_t max_tokens, int32_t block_size)
    : backend_(backend), block_size_(block_size) {
  for (Buffer& buffer : buffers_) {
    buffer = backend_.allocate(static_cast<size_t>(max_tokens) * sizeof(int32_t));
  }
}

void StepInputs::fill(const StepPlan& plan, Rotary* rotary, std::span<const int32_t> selected) {
  for (auto* list : {&token_ids_, &positions_, &slots_, &rotary_rows_, &context_len_}) {
    list->clear();
  }
  query_start_.assign(1, 0);
  if (rotary != nullptr) rotary->begin_step();
  max_blocks_ = 1;
  for (const ScheduledSequence& sequence : plan.sequences) {
    max_blocks_ = std::max(max_blocks_, static_cast<int32_t>(sequence.block_table.size()));
    append(sequence, rotary);
  }
  selected_.assign(selected.begin(), selected.end());
  block_tables_.assign(plan.sequences.size() * static_cast<size_t>(max_blocks_), 0);
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    std::ranges::copy(plan.sequences[i].block_table,
                      block_tables_.begin() + static_cast<int64_t>(i) * max_blocks_);
  }
  upload(0, token_ids_);
  upload(1, positions_);
  upload(2, slots_);
  upload(3, rotary_rows_);
  upload(4, selected_);
}

void StepInputs::append(const ScheduledSequence& sequence, Rotary* rotary) {
  const int32_t begin = sequence.num_computed;
  const int32_t end = begin + static_cast<int32_t>(sequence.tokens.size());
  token_ids_.insert(token_ids_.end(), sequence.tokens.begin(), sequence.tokens.end());
  for (int32_t position = begin; position < end; ++position) {
    const auto block = static_cast<size_t>(position / block_size_);
    positions_.push_back(position);
    slots_.push_back(sequence.block_table[block] * block_size_ + position % block_size_);
  }
  if (rotary != nullptr) {
    rotary->append_rows(begin, end, sequence.prompt_len, rotary_rows_);
  } else {
    rotary_rows_.insert(rotary_rows_.end(), positions_.end() - (end - begin), positions_.end());
  }
  query_start_.push_back(static_cast<int32_t>(token_ids_.size()));
  context_len_.push_back(end);
}

void StepInputs::upload(int index, const std::vector<int32_t>& values) {
  OCTAVO_CHECK(values.size() * sizeof(int32_t) <= buffers_[index].bytes(),
               "step inputs: ", values.size(), " rows are more than planned");
  if (values.empty()) return;
  backend_.copy_to_device(device(index, static_cast<int64_t>(values.size())), values.data());
}

Tensor StepInputs::device(int index, int64_t count) const {
  return Tensor(buffers_[index].data(), DType::kInt32, {count});
}

StepMeta StepInputs::meta() const {
  return {.num_tokens = query_start_.back(),
          .block_size = block_size_,
          .query_start = query_start_,
          .context_len = context_len_,
          .block_tables = block_tables_,
          .max_blocks = max_blocks_};
}

}  // namespace octavo
