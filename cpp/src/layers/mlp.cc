#include "layers/mlp.h"

namespace octavo {

void Mlp::apply(const ForwardContext& context, const Tensor& x, const Tensor& residual,
                const Tensor& out) const {
  const Arena::Scope scope(context.arena);
  const Tensor inner = context.activations(x.dim(0), up_.out_features());
  if (!gated_) {
    up_.apply(context, x, inner, activation_);
    down_.apply(context, inner, out, Activation::kNone, residual);
    return;
  }
  context.backend.gated_mlp({.x = x,
                             .gate_up = up_.weight(),
                             .gate_up_bias = up_.bias(),
                             .down = down_.weight(),
                             .down_bias = down_.bias(),
                             .activation = activation_,
                             .scratch = inner,
                             .residual = residual,
                             .out = out});
}

}  // namespace octavo
