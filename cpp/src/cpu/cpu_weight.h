// Weights of the CPU back end: panels of 32 output features, [out / 32][in][32] of dtype(), padded
// with zeros. Made by pack_weight, read-only, read by the kernels of every instruction set.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "backend/packed_weight.h"
#include "base/thread_pool.h"
#include "cpu/kernel_table.h"
#include "tensor/buffer.h"

namespace octavo {

class CpuWeight final : public PackedWeight {
 public:
  CpuWeight(int64_t out_features, int64_t in_features, DType dtype, Buffer panels)
      : PackedWeight(out_features, in_features, dtype, panels.bytes()),
        panels_(std::move(panels)) {}

  int64_t num_panels() const { return (out_features() + kPanelWidth - 1) / kPanelWidth; }
  const void* panels() const { return panels_.data(); }

 private:
  Buffer panels_;
};

// Zeroed memory that is committed when touched, aligned to a page. Throws OutOfMemory.
Buffer allocate_host_memory(size_t bytes);

// See Backend::pack.
std::unique_ptr<CpuWeight> pack_weight(std::span<const WeightSegment> segments, DType dtype,
                                       const KernelTable& kernels, ThreadPool& pool);

}  // namespace octavo
