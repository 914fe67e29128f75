// The CPU back end: float32 activations, weights and KV cache in float32, float16 or bfloat16.
// Owned by the engine; used by its step thread, which computes together with the threads of its
// pool.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "backend/backend.h"
#include "base/thread_pool.h"
#include "cpu/cpu_weight.h"
#include "cpu/kernel_table.h"

namespace octavo {

class CpuBackend final : public Backend {
 public:
  CpuBackend(const KernelTable& kernels, int32_t num_threads);

  DeviceInfo info() const override;
  DType activation_dtype(DType) const override { return DType::kFloat32; }

  Buffer allocate(size_t bytes) override { return allocate_host_memory(bytes); }
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
  void gated_mlp(const GatedMlpArgs& args) override;

 private:
  // Query rows of one sequence that one task computes, for one KV head.
  struct QueryTile {
    int32_t sequence;
    int32_t token;  // row of the batch
    int32_t tokens;
    int32_t first_position;  // of the first token in its sequence
  };

  // Calls fn(row) or fn(row, thread) for every row; in parallel where `work`, in elements, is worth
  // it.
  template <typename Fn>
  void for_each_row(int64_t rows, int64_t work, const Fn& fn);
  // Rows of x as weights of `form` take them: x itself, or copies that live until the next call.
  struct PreparedRows {
    const void* data;
    int64_t stride;  // bytes
  };
  PreparedRows prepare_rows(const Tensor& x, WeightForm form);
  // Splits `task`, which is complete but for its ranges and scratch, over the pool.
  void run_linear(const LinearTask& task, WeightForm form, int64_t rows, int64_t panels);
  // Fits the tiles of the step to the number of query heads of a KV head.
  void plan_attention(int32_t group);
  // Floats of each thread's own scratch memory; grows, so that it settles in the first steps.
  void reserve_scratch(int64_t floats);
  float* scratch(int32_t thread) const { return scratch_.as<float>() + thread * scratch_stride_; }

  // Elements below which waking the pool costs more than it saves, and elements of one task.
  static constexpr int64_t kSerialWork = 16384;
  static constexpr int64_t kTaskWork = 8192;

  const KernelTable& kernels_;
  ThreadPool pool_;
  Buffer scratch_;
  int64_t scratch_stride_ = 0;  // floats
  Buffer prepared_;             // see prepare_rows

  StepMeta meta_;
  std::vector<QueryTile> tiles_;  // longest context first
  int32_t tiles_group_ = 0;       // that the tiles are planned for; 0: not yet
};

template <typename Fn>
void CpuBackend::for_each_row(int64_t rows, int64_t work, const Fn& fn) {
  if (rows <= 0) return;
  const int64_t tasks = work < kSerialWork ? 1 : std::min(rows, work / kTaskWork);
  pool_.parallel_for(tasks, [&](int64_t task, int32_t thread) {
    const int64_t end = rows * (task + 1) / tasks;
    for (int64_t row = rows * task / tasks; row < end; ++row) {
      if constexpr (std::is_invocable_v<const Fn&, int64_t, int32_t>) {
        fn(row, thread);
      } else {
        fn(row);
      }
    }
  });
}

}  // namespace octavo
