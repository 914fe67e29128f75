// One GPU as the back end holds it: the device, its stream, and what the host hands over to it.
// Owned by the CUDA back end, used on the step thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tensor/buffer.h"

namespace octavo::cuda {

struct DeviceProperties {
  int32_t index = 0;
  std::string name;              // "NVIDIA H100 80GB HBM3"
  int32_t major = 0, minor = 0;  // compute capability
  int32_t multiprocessors = 0;
  std::string isa() const { return "sm_" + std::to_string(major * 10 + minor); }
};

// Throws NotSupported that says what was found where there is no driver, none that is new enough,
// no such GPU, or one of a kind that the kernels were not built for.
DeviceProperties open_device(int32_t index);

// A CUDA stream.
class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const { return stream_; }
  void wait() const;

 private:
  cudaStream_t stream_ = nullptr;
};

// Memory of the host that the device reads while the host goes on: a ring of pinned slots, each
// free again when the copies from it are done.
class StagingRing {
 public:
  StagingRing() = default;
  ~StagingRing();
  StagingRing(const StagingRing&) = delete;
  StagingRing& operator=(const StagingRing&) = delete;

  // At least `bytes`, in the next slot; waits until its last use is over.
  void* acquire(size_t bytes);
  void* current() const { return slots_[next_].data; }
  // What was acquired last is in use until `stream` comes to this point.
  void release(cudaStream_t stream);

 private:
  struct Slot {
    void* data = nullptr;
    size_t bytes = 0;
    cudaEvent_t done = nullptr;
    bool used = false;
  };
  static constexpr size_t kSlots = 8;

  Slot slots_[kSlots];
  size_t next_ = 0;
};

// Zeroed memory of the device. Throws OutOfMemory.
Buffer allocate_device(size_t bytes, cudaStream_t stream);

}  // namespace octavo::cuda
