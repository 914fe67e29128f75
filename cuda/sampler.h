// The word `sample` on the device: edits, filters, draws and log-probabilities of rows of logits,
// bit for bit as backend/sample_row.h defines them. Rows that need the host (a custom edit, the
// log-probabilities of a whole vocabulary) are copied there. Owned by the CUDA back end, used on
// the step thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "backend/op_args.h"

namespace octavo::cuda {

class Sampler {
 public:
  // Buffers are allocated when they are first needed, and again only for more than there was yet.
  explicit Sampler(cudaStream_t stream);
  ~Sampler();
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;

  // Allocates what rows of the usual kinds will need.
  void reserve(int64_t max_rows, int64_t vocab);

  // As Backend::sample. Greedy rows without edits or log-probabilities cost one launch and no wait;
  // only rows that need the host wait. Log-probabilities are host memory: they are there after
  // finish().
  void sample(const SampleArgs& args);
  // Waits for what the last samples still owe to the host: log-probabilities.
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace octavo::cuda
