#include "runner/step_inputs.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace octavo {
namespace {

constexpr int kLists = 5;
constexpr int64_t kListAlignment = 16;  // elements: a list begins at a cache line

int64_t list_stride(int64_t rows) {
  return (rows + kListAlignment - 1) / kListAlignment * kListAlignment;
}

}  // namespace

StepInputs::StepInputs(Backend& backend, int64_t max_rows, int32_t block_size)
    : backend_(backend),
      block_size_(block_size),
      max_rows_(max_rows),
      buffer_(backend_.allocate(static_cast<size_t>(kLists * list_stride(max_rows)) *
                                sizeof(int32_t))) {}

void StepInputs::fill(const StepPlan& plan, Rotary* rotary, std::span<const int32_t> selected,
                      int64_t padded_rows) {
  for (auto* list : {&token_ids_, &positions_, &slots_, &rotary_rows_, &context_len_}) {
    list->clear();
  }
  query_start_.assign(1, 0);
  if (rotary != nullptr) rotary->begin_step();
  block_columns_ = 1;
  for (const ScheduledSequence& sequence : plan.sequences) {
    block_columns_ = std::max(block_columns_, static_cast<int32_t>(sequence.block_table.size()));
    append(sequence, rotary);
  }
  selected_.assign(selected.begin(), selected.end());
  if (padded_rows != 0) pad(padded_rows);
  block_tables_.assign(context_len_.size() * static_cast<size_t>(block_columns_), 0);
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    std::ranges::copy(plan.sequences[i].block_table,
                      block_tables_.begin() + static_cast<int64_t>(i) * block_columns_);
  }
  upload();
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

// Rows that compute nothing which anybody reads, so that few different steps are recorded. The
// columns of the block tables become a power of two for the same reason.
void StepInputs::pad(int64_t rows) {
  while (num_tokens() < rows) {
    selected_.push_back(static_cast<int32_t>(token_ids_.size()));
    token_ids_.push_back(0);
    positions_.push_back(0);
    slots_.push_back(-1);
    rotary_rows_.push_back(0);
    context_len_.push_back(0);
    query_start_.push_back(static_cast<int32_t>(token_ids_.size()));
  }
  block_columns_ = std::max(
      kMinBlockColumns, static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(block_columns_))));
}

// All lists in one copy: each costs the host some microseconds.
void StepInputs::upload() {
  OCTAVO_CHECK(num_tokens() <= max_rows_ && num_selected() <= max_rows_,
               "step inputs: ", num_tokens(), " rows are more than planned");
  const int64_t stride = list_stride(num_tokens());
  staging_.assign(static_cast<size_t>(kLists * stride), 0);
  int64_t begin = 0;
  for (const auto* list : {&token_ids_, &positions_, &slots_, &rotary_rows_, &selected_}) {
    std::ranges::copy(*list, staging_.begin() + begin);
    begin += stride;
  }
  backend_.copy_to_device(Tensor(buffer_.data(), DType::kInt32, {kLists * stride}),
                          staging_.data());
}

Tensor StepInputs::device(int index, int64_t count) const {
  return Tensor(buffer_.as<int32_t>() + index * list_stride(num_tokens()), DType::kInt32, {count});
}

StepMeta StepInputs::meta() const {
  return {.num_tokens = query_start_.back(),
          .block_size = block_size_,
          .query_start = query_start_,
          .context_len = context_len_,
          .block_tables = block_tables_,
          .max_blocks = block_columns_};
}

}  // namespace octavo
