#include "layers/norm.h"

namespace octavo {

void Norm::apply(const ForwardContext& context, const Tensor& x, const Tensor& out) const {
  const Tensor weight(weight_.data(), DType::kFloat32, {hidden_});
  if (kind_ == NormKind::kRms) {
    context.backend.rms_norm({.x = x, .weight = weight, .eps = eps_, .out = out});
    return;
  }
  const Tensor bias =
      bias_.data() == nullptr ? Tensor() : Tensor(bias_.data(), DType::kFloat32, {hidden_});
  context.backend.layer_norm({.x = x, .weight = weight, .bias = bias, .eps = eps_, .out = out});
}

}  // namespace octavo
