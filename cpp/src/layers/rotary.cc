#include "layers/rotary.h"

#include <cmath>

#include "base/check.h"

namespace octavo {

Rotary::Rotary(Backend& backend, const RopeConfig& config, int64_t max_model_len,
               int64_t max_batch_tokens)
    : backend_(backend),
      config_(config),
      max_model_len_(max_model_len),
      max_batch_tokens_(config.type == RopeType::kDynamic ? max_batch_tokens : 0) {}

void Rotary::build() {
  host_row_.resize(static_cast<size_t>(config_.dim));
  const int64_t rows = max_model_len_ + max_batch_tokens_;
  buffer_ = allocate_for(str_cat("rotary table of ", rows, " positions (max_model_len)"), backend_,
                         static_cast<size_t>(rows * config_.dim) * sizeof(float));
  std::vector<float> frequencies = inverse_frequencies(config_, 0);
  for (int64_t position = 0; position < max_model_len_; ++position) {
    if (config_.type == RopeType::kDynamic && position >= config_.max_positions) {
      frequencies = inverse_frequencies(config_, position + 1);
    }
    write_row(position, position, frequencies);
  }
}

Tensor Rotary::table() const {
  return Tensor(buffer_.data(), DType::kFloat32, {max_model_len_ + max_batch_tokens_, config_.dim});
}

void Rotary::write_row(int64_t row, int64_t position, std::span<const float> frequencies) {
  const size_t half = frequencies.size();
  for (size_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * frequencies[i];
    host_row_[i] = std::cos(angle) * config_.attention_factor;
    host_row_[half + i] = std::sin(angle) * config_.attention_factor;
  }
  backend_.copy_to_device(table().rows(row, row + 1), host_row_.data());
}

void Rotary::append_rows(int64_t begin, int64_t end, int64_t prompt_len,
                         std::vector<int32_t>& rows) {
  std::vector<float> frequencies;
  if (config_.own_frequencies(prompt_len) && begin < prompt_len) {
    frequencies = inverse_frequencies(config_, prompt_len);
  }
  for (int64_t position = begin; position < end; ++position) {
    if (frequencies.empty() || position >= prompt_len) {
      rows.push_back(static_cast<int32_t>(position));
      continue;
    }
    OCTAVO_CHECK(step_rows_ < max_batch_tokens_);
    const int64_t row = max_model_len_ + step_rows_++;
    write_row(row, position, frequencies);
    rows.push_back(static_cast<int32_t>(row));
  }
}

}  // namespace octavo
