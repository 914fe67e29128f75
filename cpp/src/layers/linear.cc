#include "layers/linear.h"

namespace octavo {

Tensor Linear::bias() const {
  return bias_.data() == nullptr ? Tensor()
                                 : Tensor(bias_.data(), DType::kFloat32, {out_features()});
}

void Linear::apply(const ForwardContext& context, const Tensor& x, const Tensor& out,
                   Activation activation, const Tensor& residual) const {
  context.backend.linear({.x = x,
                          .weight = weight_.get(),
                          .bias = bias(),
                          .activation = activation,
                          .residual = residual,
                          .out = out});
}

}  // namespace octavo
