// Weights of the CPU back end: panels of 32 output features in the forms of weight_form.h. Made by
// pack_weight, read-only, read by the kernels of every instruction set.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/packed_weight.h"
#include "base/thread_pool.h"
#include "cpu/kernel_table.h"
#include "tensor/buffer.h"

namespace octavo {

class CpuWeight final : public PackedWeight {
 public:
  // Panels of one form.
  struct Part {
    WeightForm form;
    int64_t first_row = 0;    // output feature
    int64_t rows = 0;         // output features
    int64_t panel_bytes = 0;  // of one panel
    const std::byte* panels = nullptr;

    int64_t num_panels() const { return (rows + kPanelWidth - 1) / kPanelWidth; }
  };

  // All parts but the last are whole panels; their panels lie in `memory`, one part after another.
  CpuWeight(int64_t out_features, int64_t in_features, DType dtype, std::vector<Part> parts,
            Buffer memory);

  const std::vector<Part>& parts() const { return parts_; }
  // Row `row` as float32: out [in_features].
  void read_row(const KernelTable& kernels, int64_t row, float* out) const;

 private:
  std::vector<Part> parts_;
  Buffer memory_;
};

// Zeroed memory that is committed when touched, aligned to a page. Throws OutOfMemory.
Buffer allocate_host_memory(size_t bytes);

// See Backend::pack. Integers are kept where each run of segments of one form fills whole panels.
std::unique_ptr<CpuWeight> pack_weight(std::span<const WeightSegment> segments,
                                       const WeightTarget& target, const KernelTable& kernels,
                                       ThreadPool& pool);

}  // namespace octavo
