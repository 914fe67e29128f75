// Weights of the CUDA back end: [out_features, in_features] of one dtype, row by row. Made by
// pack_weight, read-only, read by kernels of the stream that they were made on.
#pragma once

#include <memory>
#include <span>
#include <utility>

#include "backend/backend.h"
#include "backend/packed_weight.h"
#include "tensor/buffer.h"
#include "upload.h"

namespace octavo::cuda {

class CudaWeight final : public PackedWeight {
 public:
  CudaWeight(int64_t out_features, int64_t in_features, DType dtype, Buffer memory)
      : PackedWeight(out_features, in_features, dtype, memory.bytes()),
        memory_(std::move(memory)) {}

  const void* data() const { return memory_.data(); }  // [out_features, in_features]

 private:
  Buffer memory_;
};

// See Backend::pack; memory is `backend`'s. Waits until the weight is on the device. Throws
// NotSupported for integers that are not the checkpoint's own.
std::unique_ptr<PackedWeight> pack_weight(Uploader& uploader, Backend& backend,
                                          std::span<const WeightSegment> segments,
                                          const WeightTarget& target);

}  // namespace octavo::cuda
