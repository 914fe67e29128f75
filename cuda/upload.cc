#include "upload.h"

#include <algorithm>

#include "base/cpu_topology.h"
#include "cuda_error.h"
#include "launch/rows.h"

namespace octavo::cuda {
namespace {

constexpr int32_t kMostThreads = 16;            // the bus is full by then
constexpr size_t kTaskBytes = size_t{1} << 18;  // of the rows that a thread takes at a time

int64_t at_least_one(int64_t count) { return std::max<int64_t>(count, 1); }

}  // namespace

Uploader::~Uploader() {
  cudaStreamSynchronize(stream_);
  free_buffers();
}

void Uploader::free_buffers() {
  for (Slot& slot : slots_) {
    if (slot.sent != nullptr) cudaEventDestroy(slot.sent);
    cudaFreeHost(slot.pinned);
    cudaFree(slot.device);
    slot = {};
  }
}

void Uploader::wait() { check_cuda(cudaStreamSynchronize(stream_), "upload"); }

void Uploader::release() {
  if (threads_ == nullptr) return;
  wait();
  free_buffers();
  threads_.reset();
}

// The slot that was used longest ago, when it is free.
Uploader::Slot& Uploader::next_slot(size_t bytes, bool converts) {
  Slot& slot = slots_[next_];
  next_ = (next_ + 1) % kSlots;
  if (slot.sent == nullptr) {
    check_cuda(cudaEventCreateWithFlags(&slot.sent, cudaEventDisableTiming), "upload");
  }
  if (slot.in_flight) check_cuda(cudaEventSynchronize(slot.sent), "upload");
  slot.in_flight = false;
  const size_t wanted = std::max(bytes, kSlotBytes);
  if (slot.pinned_bytes < bytes) {
    cudaFreeHost(slot.pinned);
    slot.pinned = nullptr;
    slot.pinned_bytes = 0;
    check_cuda(cudaHostAlloc(&slot.pinned, wanted, cudaHostAllocDefault), "upload");
    slot.pinned_bytes = wanted;
  }
  if (converts && slot.device_bytes < bytes) {
    cudaFree(slot.device);
    slot.device = nullptr;
    slot.device_bytes = 0;
    check_cuda(cudaMalloc(&slot.device, wanted), "upload");
    slot.device_bytes = wanted;
  }
  return slot;
}

void Uploader::fill(const HostRows& source, int64_t begin, int64_t end, std::byte* out) {
  const size_t row_bytes = static_cast<size_t>(source.cols) * dtype_size(source.dtype);
  const int64_t rows = at_least_one(static_cast<int64_t>(kTaskBytes / row_bytes));
  threads_->parallel_for((end - begin + rows - 1) / rows, [&](int64_t task) {
    const int64_t first = begin + task * rows, last = std::min(first + rows, end);
    for (int64_t row = first; row < last; ++row) {
      source.write(row, out + static_cast<size_t>(row - begin) * row_bytes);
    }
  });
}

void Uploader::upload(const HostRows& source, void* target, DType dtype) {
  if (source.rows == 0 || source.cols == 0) return;
  if (threads_ == nullptr) {
    threads_ = std::make_unique<ThreadPool>(std::min(num_affinity_cpus(), kMostThreads));
  }
  const size_t row_bytes = static_cast<size_t>(source.cols) * dtype_size(source.dtype);
  const size_t out_row_bytes = static_cast<size_t>(source.cols) * dtype_size(dtype);
  const bool converts = source.dtype != dtype;
  const int64_t rows = at_least_one(static_cast<int64_t>(kSlotBytes / row_bytes));
  for (int64_t begin = 0; begin < source.rows; begin += rows) {
    const int64_t end = std::min(begin + rows, source.rows);
    const size_t bytes = static_cast<size_t>(end - begin) * row_bytes;
    Slot& slot = next_slot(bytes, converts);
    fill(source, begin, end, static_cast<std::byte*>(slot.pinned));
    std::byte* out = static_cast<std::byte*>(target) + static_cast<size_t>(begin) * out_row_bytes;
    void* landing = converts ? slot.device : static_cast<void*>(out);
    check_cuda(cudaMemcpyAsync(landing, slot.pinned, bytes, cudaMemcpyHostToDevice, stream_),
               "upload");
    if (converts) {
      launch_convert({.source = slot.device,
                      .source_dtype = source.dtype,
                      .out = out,
                      .out_dtype = dtype,
                      .rows = end - begin,
                      .cols = source.cols,
                      .row_order = nullptr,
                      .transposed = false},
                     stream_);
    }
    check_cuda(cudaEventRecord(slot.sent, stream_), "upload");
    slot.in_flight = true;
  }
}

}  // namespace octavo::cuda
