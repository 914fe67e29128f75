// The way of weights from the host's memory to the device: rows are written into pinned buffers by
// several threads while the buffers before are on their way. Owned by the CUDA back end, used on
// the thread that loads a model.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/thread_pool.h"
#include "tensor/dtype.h"

namespace octavo::cuda {

// Rows on the host, made one by one.
struct HostRows {
  int64_t rows = 0;
  int64_t cols = 0;
  DType dtype = DType::kFloat32;
  // Writes row `row`, of cols elements of dtype; called from several threads at a time.
  std::function<void(int64_t row, std::byte* out)> write;
};

class Uploader {
 public:
  explicit Uploader(cudaStream_t stream) : stream_(stream) {}
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  cudaStream_t stream() const { return stream_; }
  // The rows become [rows, cols] of `dtype` at `target` on the device. When it returns nothing more
  // is read of the host's, and what is left to do is in the stream. Throws what `source.write`
  // does.
  void upload(const HostRows& source, void* target, DType dtype);
  // Waits for the stream.
  void wait();
  // Waits, and gives back the buffers and the threads; the next upload takes them anew.
  void release();

 private:
  static constexpr size_t kSlots = 4;
  static constexpr size_t kSlotBytes = size_t{8} << 20;  // rows larger than that make it larger

  struct Slot {
    void* pinned = nullptr;
    void* device = nullptr;  // where rows wait that become another dtype
    size_t pinned_bytes = 0, device_bytes = 0;
    cudaEvent_t sent = nullptr;
    bool in_flight = false;
  };

  Slot& next_slot(size_t bytes, bool converts);
  void fill(const HostRows& source, int64_t begin, int64_t end, std::byte* out);
  void free_buffers();

  cudaStream_t stream_;
  std::unique_ptr<ThreadPool> threads_;
  std::array<Slot, kSlots> slots_{};
  size_t next_ = 0;
};

}  // namespace octavo::cuda
