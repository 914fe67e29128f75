// The back end of one NVIDIA GPU. Words become launches on one stream; the host waits only where it
// reads memory of the device. Made by octavo_make_cuda_backend (plugin.cc), used on the step
// thread.
#pragma once

#include <memory>
#include <vector>

#include "backend/backend.h"
#include "device.h"
#include "gemm.h"
#include "launch/attention.h"
#include "recordings.h"
#include "sampler.h"
#include "upload.h"

namespace octavo::cuda {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(int32_t device);
  ~CudaBackend() override;

  DeviceInfo info() const override;
  DType activation_dtype(DType weights) const override { return weights; }
  std::optional<DeviceMemory> memory() const override;
  int64_t logits_rows() const override { return kLogitsRows; }

  Buffer allocate(size_t bytes) override;
  void copy_to_device(const Tensor& target, const void* source) override;
  void copy_to_host(void* target, const Tensor& source) override;
  std::unique_ptr<PackedWeight> pack(std::span<const WeightSegment> segments,
                                     const WeightTarget& target) override;
  size_t kv_block_bytes(const KvShape& shape) const override;

  void begin_step(const StepMeta& meta) override;
  int64_t padded_rows(int64_t rows) const override;
  void replay(const ReplayKey& key, const std::function<void()>& body) override;
  void forget_replays() override;

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
  void gated_mlp(const GatedMlpArgs& args) override;

 private:
  // Rows of logits at a time, and the largest step that is recorded: float32 logits of a large
  // vocabulary take half a megabyte a row.
  static constexpr int64_t kLogitsRows = 256;
  static constexpr size_t kStagedBytes = size_t{4} << 20;  // larger copies are not staged

  // The device of this thread: every word that may be a thread's first calls it.
  void use_device() const;
  // Bytes of the host on their way to the device, in stream order; `source` may go afterwards.
  void stage(void* target, const void* source, size_t bytes);
  void plan_batch(const StepMeta& meta);
  void reserve_batch(size_t bytes);
  void reserve_splits(const AttentionArgs& args);

  DeviceProperties device_;
  DeviceMemory at_start_;
  Stream stream_;
  StagingRing staging_;
  Gemm gemm_;
  Sampler sampler_;
  Uploader uploader_;
  Recordings recordings_;

  DeviceBatch batch_{};
  StepMeta meta_{};      // of the step; its spans belong to the caller
  Buffer batch_buffer_;  // what DeviceBatch points to
  Buffer split_state_, split_done_;
  Buffer copies_buffer_;
  std::vector<int32_t> batch_words_;
  std::vector<QueryTile> tiles_;
  std::vector<Buffer> retired_;  // outgrown buffers that launched kernels may still read
  int32_t tile_rows_ = 0;        // of tiles_
};

}  // namespace octavo::cuda
