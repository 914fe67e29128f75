// Takes named tensors from a checkpoint and packs them onto a back end: the only way from files to
// layers. Used by one thread while a model is built.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "layers/embedding.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "weights/checkpoint.h"

namespace octavo {

// One matrix of a stacked projection. `heads` is set for Llama's q and k: a checkpoint with
// interleaved rotary rows has them reordered head by head.
struct LinearPart {
  std::string name;  // without ".weight" and ".bias"
  int64_t out_features;
  int64_t rotary_heads = 0;
};

class WeightLoader {
 public:
  WeightLoader(Backend& backend, Checkpoint& checkpoint, const WeightTarget& target)
      : backend_(backend), checkpoint_(checkpoint), target_(target) {}

  Backend& backend() const { return backend_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }
  int64_t num_parameters() const { return num_parameters_; }
  int64_t weight_bytes() const { return weight_bytes_; }

  // The parts stacked along the output. With `bias`, every part must have one.
  Linear linear(const std::vector<LinearPart>& parts, int64_t in_features, bool bias);
  // A projection that Hugging Face's GPT-2 stores as Conv1D, [in, out].
  Linear conv1d(const std::string& name, int64_t in_features, int64_t out_features);
  // A table [rows, dim] looked up by id + offset; `name` is the full tensor name.
  Embedding embedding(const std::string& name, int64_t rows, int64_t dim, int32_t offset = 0);
  Norm rms_norm(const std::string& name, int64_t hidden, float eps);
  // With `affine` false the layer has neither weight nor bias in the checkpoint. The bias is
  // optional.
  Norm layer_norm(const std::string& name, int64_t hidden, float eps, bool affine = true);
  // A vector as float32 on the host; empty when the checkpoint lacks it.
  std::vector<float> optional_vector(const std::string& name, int64_t size);

  // Throws LoadError that names the first tensor that nothing took, unless one of `ignored`, a
  // substring of its name, says that it is no weight.
  void finish(const std::vector<std::string>& ignored) const;

 private:
  // The segments are matrices of the tensors, which are released.
  std::shared_ptr<const PackedWeight> pack(const std::vector<WeightTensor>& tensors,
                                           const std::vector<WeightSegment>& segments,
                                           const WeightTarget& target);
  void append_vector(const std::string& name, int64_t size, const std::vector<int32_t>& order,
                     std::vector<float>& out);
  Buffer upload(const std::vector<float>& values);

  Backend& backend_;
  Checkpoint& checkpoint_;
  WeightTarget target_;
  int64_t num_parameters_ = 0;
  int64_t weight_bytes_ = 0;
};

}  // namespace octavo
