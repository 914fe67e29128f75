// The reference back end: scalar, single-threaded, and as plain as the definitions of the words.
// Activations are float32; every word computes in double and rounds its result once, so that it is
// the oracle of the other back ends. Made by make_ref_backend(), used on the step thread.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "backend/backend.h"

namespace octavo {

// Row-major [out_features, in_features], rounded to dtype().
class RefWeight final : public PackedWeight {
 public:
  RefWeight(int64_t out_features, int64_t in_features, DType dtype);

  void write_row(int64_t row, const float* values);  // values [in_features]
  // Row `row` as float32: out [in_features].
  void read_row(int64_t row, float* out) const;

 private:
  std::vector<std::byte> data_;
};

class RefBackend final : public Backend {
 public:
  DeviceInfo info() const override;
  DType activation_dtype(DType) const override { return DType::kFloat32; }

  Buffer allocate(size_t bytes) override;
  void copy_to_device(const Tensor& target, const void* source) override;
  void copy_to_host(void* target, const Tensor& source) override;
  std::unique_ptr<PackedWeight> pack(std::span<const WeightSegment> segments,
                                     const WeightTarget& target) override;
  size_t kv_block_bytes(const KvShape& shape) const override;

  void begin_step(const StepMeta& meta) override;

  void embed(const EmbedArgs& args) override;
  void linear(const LinearArgs& args) override;
  void rms_norm(const RmsNormArgs& args) override;
  void layer_norm(const LayerNormArgs& args) override;
  void gate(const GateArgs& args) override;
  void rope_store(const RopeStoreArgs& args) override;
  void attention(const AttentionArgs& args) override;
  void gather_rows(const GatherRowsArgs& args) override;
  void sample(const SampleArgs& args) override;
  void copy_blocks(std::span<const KvLayer> layers, std::span<const BlockCopy> copies) override;

 private:
  // Attention of one query row over keys [first, last] of a sequence, all its heads.
  void attend(const AttentionArgs& args, int64_t token, int32_t sequence, int32_t first,
              int32_t last) const;

  // Copies of the last StepMeta.
  int32_t num_tokens_ = 0;
  int32_t block_size_ = 0;
  int32_t max_blocks_ = 0;
  std::vector<int32_t> query_start_;   // [sequences + 1]
  std::vector<int32_t> context_len_;   // [sequences]
  std::vector<int32_t> block_tables_;  // [sequences, max_blocks]
};

}  // namespace octavo
