// A dense layer: y = activation(x W^T + b) [+ residual]. Owned by a model, immutable after loading.
#pragma once

#include <memory>

#include "layers/forward_context.h"

namespace octavo {

class Linear {
 public:
  Linear() = default;
  // `bias` is float32 [out], or empty.
  Linear(std::shared_ptr<const PackedWeight> weight, Buffer bias)
      : weight_(std::move(weight)), bias_(std::move(bias)) {}

  int64_t out_features() const { return weight_->out_features(); }
  int64_t in_features() const { return weight_->in_features(); }
  const PackedWeight* weight() const { return weight_.get(); }
  Tensor bias() const;  // float32 [out], or none

  // out [tokens, out] = activation(x [tokens, in] W^T + b) + residual; out may be residual.
  void apply(const ForwardContext& context, const Tensor& x, const Tensor& out,
             Activation activation = Activation::kNone, const Tensor& residual = {}) const;

 private:
  std::shared_ptr<const PackedWeight> weight_;  // shared by tied embeddings and heads
  Buffer bias_;
};

}  // namespace octavo
