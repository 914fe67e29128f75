// The table of cosines and sines by which queries and keys are rotated. Owned by a model; filled at
// loading, except for the rows of prompts longer than a dynamic scaling's original context, which
// the runner asks for in each step.
#pragma once

#include <span>
#include <vector>

#include "backend/backend.h"
#include "layers/rope_config.h"

namespace octavo {

class Rotary {
 public:
  // Rows for positions 0..max_model_len-1, and `max_batch_tokens` rows of one step's own. There is
  // no table before build(): a size that the weights contradict is never allocated.
  Rotary(Backend& backend, const RopeConfig& config, int64_t max_model_len,
         int64_t max_batch_tokens);
  void build();

  const RopeConfig& config() const { return config_; }
  Tensor table() const;  // float32 [rows, dim]: cosines, then sines

  // Begins a step: rows made for the last one are free again.
  void begin_step() { step_rows_ = 0; }
  // Appends to `rows` the table row of each of the positions [begin, end) of a sequence whose
  // prompt has `prompt_len` tokens. With dynamic scaling, as in transformers, a prompt longer than
  // the original context is rotated by the frequencies of its own length, and each later token by
  // those of the length that it completes.
  void append_rows(int64_t begin, int64_t end, int64_t prompt_len, std::vector<int32_t>& rows);

 private:
  void write_row(int64_t row, int64_t position, std::span<const float> frequencies);

  Backend& backend_;
  RopeConfig config_;
  int64_t max_model_len_;
  int64_t max_batch_tokens_;
  int64_t step_rows_ = 0;
  std::vector<float> host_row_;  // [dim]
  Buffer buffer_;
};

}  // namespace octavo
