// A back end that does nothing: the model's forward pass runs on it once to measure its workspace.
#pragma once

#include "backend/backend.h"

namespace octavo {

class NullBackend : public Backend {
 public:
  DeviceInfo info() const override { return {.name = "null", .isa = "none"}; }
  DType activation_dtype(DType) const override { return DType::kFloat32; }
  Buffer allocate(size_t) override { return {}; }
  void copy_to_device(const Tensor&, const void*) override {}
  void copy_to_host(void*, const Tensor&) override {}
  std::unique_ptr<PackedWeight> pack(std::span<const WeightSegment>, const WeightTarget&) override {
    return nullptr;
  }
  size_t kv_block_bytes(const KvShape&) const override { return 0; }
  void begin_step(const StepMeta&) override {}
  void embed(const EmbedArgs&) override {}
  void linear(const LinearArgs&) override {}
  void rms_norm(const RmsNormArgs&) override {}
  void layer_norm(const LayerNormArgs&) override {}
  void gate(const GateArgs&) override {}
  void rope_store(const RopeStoreArgs&) override {}
  void attention(const AttentionArgs&) override {}
  void gather_rows(const GatherRowsArgs&) override {}
  void sample(const SampleArgs&) override {}
  void copy_blocks(std::span<const KvLayer>, std::span<const BlockCopy>) override {}
  void gated_mlp(const GatedMlpArgs&) override {}
};

}  // namespace octavo
