// Times of work on a stream as a step runs it: recorded once as a CUDA graph and replayed. Used by
// the benchmarks' one thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>

namespace octavo::bench {

class Timer {
 public:
  explicit Timer(cudaStream_t stream);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // Seconds of what `launch` puts on the stream: the best of a few replays.
  double seconds(const std::function<void()>& launch);

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

// Bytes read and written a second by the device's own copy.
double copy_rate(Timer& timer, void* memory, size_t bytes, cudaStream_t stream);

}  // namespace octavo::bench
