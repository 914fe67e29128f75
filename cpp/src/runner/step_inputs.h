// The device's view of a step plan: ids, positions, slots and block tables in one persistent buffer
// that is sized once for the largest step. Owned by the model runner.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "layers/rotary.h"
#include "sched/step_plan.h"

namespace octavo {

class StepInputs {
 public:
  // A recorded step's block tables have at least so many columns.
  static constexpr int32_t kMinBlockColumns = 16;

  StepInputs(Backend& backend, int64_t max_rows, int32_t block_size);

  // Lays out the plan's rows in its order; `selected` are those whose logits are wanted. `rotary`
  // may be null. With `padded_rows`, sequences of one row that pad the step follow, up to so many
  // rows, all of them selected: then the device's lists lie where they lay for as many rows before.
  void fill(const StepPlan& plan, Rotary* rotary, std::span<const int32_t> selected,
            int64_t padded_rows = 0);

  StepMeta meta() const;
  int64_t num_tokens() const { return static_cast<int64_t>(token_ids_.size()); }
  int64_t num_selected() const { return static_cast<int64_t>(selected_.size()); }

  int64_t block_columns() const { return block_columns_; }

  Tensor token_ids() const { return device(0, num_tokens()); }
  Tensor positions() const { return device(1, num_tokens()); }
  Tensor slots() const { return device(2, num_tokens()); }
  Tensor rotary_rows() const { return device(3, num_tokens()); }
  Tensor selected_rows() const { return device(4, num_selected()); }

 private:
  void append(const ScheduledSequence& sequence, Rotary* rotary);
  void pad(int64_t rows);
  void upload();
  // int32 [count] at the start of the index-th list.
  Tensor device(int index, int64_t count) const;

  Backend& backend_;
  int32_t block_size_;
  int64_t max_rows_;
  int32_t block_columns_ = 0;  // of the step's block tables
  Buffer buffer_;              // int32: the lists, one after the other
  std::vector<int32_t> staging_;
  std::vector<int32_t> token_ids_, positions_, slots_, rotary_rows_;  // [tokens]
  std::vector<int32_t> selected_;                                     // [selected]
  std::vector<int32_t> query_start_;                                  // [sequences + 1]
  std::vector<int32_t> context_len_;                                  // [sequences]
  std::vector<int32_t> block_tables_;                                 // [sequences, block_columns]
};

}  // namespace octavo
