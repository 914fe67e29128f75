#include "recordings.h"

#include "cuda_error.h"

namespace octavo::cuda {

void Recordings::run(const ReplayKey& key, const std::function<void()>& body) {
  Recording& recording = recordings_[key];
  if (!recording.warm) {
    body();
    recording.warm = true;
    return;
  }
  if (recording.graph == nullptr) recording.graph = record(body);
  check_cuda(cudaGraphLaunch(recording.graph, stream_), "replay");
}

cudaGraphExec_t Recordings::record(const std::function<void()>& body) {
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "record");
  try {
    body();
  } catch (...) {
    cudaStreamEndCapture(stream_, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  check_cuda(cudaStreamEndCapture(stream_, &graph), "record");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t code = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check_cuda(code, "record");
  return executable;
}

void Recordings::clear() {
  for (auto& [key, recording] : recordings_) {
    if (recording.graph != nullptr) cudaGraphExecDestroy(recording.graph);
  }
  recordings_.clear();
}

}  // namespace octavo::cuda
