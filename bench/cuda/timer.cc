#include "timer.h"

#include <algorithm>

#include "cuda_error.h"

namespace octavo::bench {

using cuda::check_cuda;

Timer::Timer(cudaStream_t stream) : stream_(stream) {
  check_cuda(cudaEventCreate(&begin_), "timer");
  check_cuda(cudaEventCreate(&end_), "timer");
}

Timer::~Timer() {
  cudaEventDestroy(begin_);
  cudaEventDestroy(end_);
}

double Timer::seconds(const std::function<void()>& launch) {
  constexpr int kReplays = 3;  // the first one is not counted
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "timer");
  launch();
  check_cuda(cudaStreamEndCapture(stream_, &graph), "timer");
  cudaGraphExec_t executable = nullptr;
  check_cuda(cudaGraphInstantiate(&executable, graph, 0), "timer");
  cudaGraphDestroy(graph);
  double best = 1e9;
  for (int i = 0; i < kReplays; ++i) {
    check_cuda(cudaEventRecord(begin_, stream_), "timer");
    check_cuda(cudaGraphLaunch(executable, stream_), "timer");
    check_cuda(cudaEventRecord(end_, stream_), "timer");
    check_cuda(cudaEventSynchronize(end_), "timer");
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin_, end_), "timer");
    if (i > 0) best = std::min(best, milliseconds / 1e3);
  }
  cudaGraphExecDestroy(executable);
  return best;
}

double copy_rate(Timer& timer, void* memory, size_t bytes, cudaStream_t stream) {
  auto* data = static_cast<std::byte*>(memory);
  const double seconds = timer.seconds([&] {
    check_cuda(cudaMemcpyAsync(data + bytes / 2, data, bytes / 2, cudaMemcpyDeviceToDevice, stream),
               "copy");
  });
  return static_cast<double>(bytes) / seconds;
}

}  // namespace octavo::bench
