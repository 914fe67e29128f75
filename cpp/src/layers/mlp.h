// The feed-forward block of a decoder layer, gated (Llama) or plain (OPT, GPT-2). Owned by a model.
#pragma once

#include "layers/linear.h"

namespace octavo {

class Mlp {
 public:
  Mlp() = default;
  // Gated: `up` is gate and up stacked, [2 * intermediate, hidden]. Plain: [intermediate, hidden].
  Mlp(bool gated, Activation activation, Linear up, Linear down)
      : gated_(gated), activation_(activation), up_(std::move(up)), down_(std::move(down)) {}

  // out [tokens, hidden] = residual + mlp(x [tokens, hidden]); out may be residual or x.
  void apply(const ForwardContext& context, const Tensor& x, const Tensor& residual,
             const Tensor& out) const;

 private:
  bool gated_ = false;
  Activation activation_ = Activation::kNone;
  Linear up_;
  Linear down_;
};

}  // namespace octavo
