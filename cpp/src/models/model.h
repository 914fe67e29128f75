// A loaded model: weights on a back end and the order of words that computes them. Knows no device
// and no scheduler. Owned by the model runner, used on the step thread.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "layers/forward_context.h"
#include "layers/rotary.h"

namespace octavo {

// What the runner must know to plan memory.
struct ModelShape {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_model_len = 0;  // the longest context that positions and tables allow
};

class Model {
 public:
  virtual ~Model() = default;

  const ModelShape& shape() const { return shape_; }
  // Null for models without rotation.
  virtual Rotary* rotary() { return nullptr; }

  // Computes the batch into `hidden` [tokens, hidden_size], storing keys and values into `kv` (one
  // per layer).
  virtual void forward(const ForwardContext& context, std::span<const KvLayer> kv,
                       const Tensor& hidden) = 0;
  // The logits, float32 [selected, vocab_size], of the rows of `hidden` that `rows`, int32
  // [selected], names. Called for some rows at a time: the logits of a long prompt never exist
  // together.
  virtual void compute_logits(const ForwardContext& context, const Tensor& hidden,
                              const Tensor& rows, const Tensor& logits) = 0;

 protected:
  ModelShape shape_;
};

}  // namespace octavo
