// Steps that were recorded as CUDA graphs, by their key. Owned by the CUDA back end, used on the
// step thread.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <map>

#include "backend/backend.h"

namespace octavo::cuda {

class Recordings {
 public:
  explicit Recordings(cudaStream_t stream) : stream_(stream) {}
  ~Recordings() { clear(); }
  Recordings(const Recordings&) = delete;
  Recordings& operator=(const Recordings&) = delete;

  // The first time under a key `body` runs as it is, which also warms up what it calls; the second
  // time it is recorded; from then on it is replayed.
  void run(const ReplayKey& key, const std::function<void()>& body);
  void clear();

 private:
  struct Recording {
    bool warm = false;
    cudaGraphExec_t graph = nullptr;
  };

  cudaGraphExec_t record(const std::function<void()>& body);

  cudaStream_t stream_;
  std::map<ReplayKey, Recording> recordings_;
};

}  // namespace octavo::cuda
