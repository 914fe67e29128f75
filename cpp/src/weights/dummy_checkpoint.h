// Random weights from a configuration alone, for benchmarks: the same names and shapes always give
// the same values. Owned by the loading thread; holds what was taken from it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "weights/checkpoint.h"

namespace octavo {

class DummyCheckpoint final : public Checkpoint {
 public:
  explicit DummyCheckpoint(const std::string& directory);

  Scheme main_scheme() const override { return scheme_; }
  // Every tensor is there, but for one that only GGUF files have.
  bool has(std::string_view name) const override { return name != "rope_freqs.weight"; }
  // Matrices are noise (quant/noise.h), which takes no memory here; weights of norms are ones,
  // biases zeros. Throws OutOfMemory when they cannot be counted or held.
  WeightTensor take(std::string_view name, std::span<const int64_t> shape) override;
  std::vector<std::string> unused() const override { return {}; }

 private:
  Scheme scheme_ = Scheme::kBF16;
  std::map<std::string, std::vector<std::byte>, std::less<>> taken_;
};

}  // namespace octavo
