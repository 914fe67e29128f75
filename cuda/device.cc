#include "device.h"

#include <algorithm>

#include "cuda_error.h"

namespace octavo::cuda {
namespace {

constexpr int32_t kOldestMajor = 8;  // tensor cores on bfloat16, asynchronous copies

std::string version_text(int version) { return str_cat(version / 1000, ".", version % 1000 / 10); }

// Why CUDA cannot be used at all.
[[noreturn]] void refuse(cudaError_t code) {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const std::string found =
      driver == 0 ? std::string("no NVIDIA driver") : "a driver for CUDA " + version_text(driver);
  throw NotSupported(str_cat("device: 'cuda': ", cudaGetErrorString(code), "; found ", found,
                             "; expected a GPU and a driver for CUDA ", version_text(runtime),
                             " or newer"));
}

}  // namespace

DeviceProperties open_device(int32_t index) {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess) refuse(code);
  if (index >= count) {
    throw NotSupported(str_cat("device: 'cuda:", index, "': found ", count,
                               " GPUs; expected a number below that"));
  }
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, index), "device");
  if (properties.major < kOldestMajor) {
    throw NotSupported(str_cat("device: 'cuda:", index, "': found ", properties.name,
                               " of compute capability ", properties.major, ".", properties.minor,
                               "; expected ", kOldestMajor, ".0 or newer"));
  }
  check_cuda(cudaSetDevice(index), "device");
  return {.index = index,
          .name = properties.name,
          .major = properties.major,
          .minor = properties.minor,
          .multiprocessors = properties.multiProcessorCount};
}

Stream::Stream() {
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
}

Stream::~Stream() { cudaStreamDestroy(stream_); }

void Stream::wait() const { check_cuda(cudaStreamSynchronize(stream_), "wait for the device"); }

StagingRing::~StagingRing() {
  for (Slot& slot : slots_) {
    if (slot.used) cudaEventSynchronize(slot.done);
    if (slot.done != nullptr) cudaEventDestroy(slot.done);
    cudaFreeHost(slot.data);
  }
}

void* StagingRing::acquire(size_t bytes) {
  Slot& slot = slots_[next_];
  if (slot.done == nullptr) {
    check_cuda(cudaEventCreateWithFlags(&slot.done, cudaEventDisableTiming), "staging");
  }
  if (slot.used) check_cuda(cudaEventSynchronize(slot.done), "staging");
  slot.used = false;
  if (slot.bytes < bytes) {
    const size_t grown = std::max(bytes + bytes / 2, size_t{64} << 10);
    cudaFreeHost(slot.data);
    slot.data = nullptr;
    slot.bytes = 0;
    check_cuda(cudaHostAlloc(&slot.data, grown, cudaHostAllocDefault), "staging");
    slot.bytes = grown;
  }
  return slot.data;
}

void StagingRing::release(cudaStream_t stream) {
  Slot& slot = slots_[next_];
  check_cuda(cudaEventRecord(slot.done, stream), "staging");
  slot.used = true;
  next_ = (next_ + 1) % kSlots;
}

Buffer allocate_device(size_t bytes, cudaStream_t stream) {
  bytes = std::max<size_t>(bytes, 1);  // a tensor of no elements has an address too
  void* data = nullptr;
  const cudaError_t code = cudaMalloc(&data, bytes);
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it stays set otherwise
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    throw OutOfMemory(str_cat("allocate: ", bytes, " bytes of device memory; expected at most the ",
                              free, " that are free"));
  }
  check_cuda(code, "allocate");
  Buffer buffer(data, bytes, [](void* memory, size_t, void*) { cudaFree(memory); });
  check_cuda(cudaMemsetAsync(data, 0, bytes, stream), "allocate");
  return buffer;
}

}  // namespace octavo::cuda
