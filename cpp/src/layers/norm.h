// RMSNorm and LayerNorm behind one noun. Owned by a model, immutable after loading.
#pragma once

#include "layers/forward_context.h"

namespace octavo {

enum class NormKind : uint8_t { kRms, kLayer };

class Norm {
 public:
  Norm() = default;  // none
  // `weight` is float32 [hidden]; `bias` is float32 [hidden] or empty (always empty for RMS).
  Norm(NormKind kind, int64_t hidden, float eps, Buffer weight, Buffer bias)
      : kind_(kind),
        hidden_(hidden),
        eps_(eps),
        weight_(std::move(weight)),
        bias_(std::move(bias)) {}

  explicit operator bool() const { return hidden_ != 0; }

  // out [tokens, hidden] = norm(x [tokens, hidden]); out may be x.
  void apply(const ForwardContext& context, const Tensor& x, const Tensor& out) const;

 private:
  NormKind kind_ = NormKind::kRms;
  int64_t hidden_ = 0;
  float eps_ = 0.0f;
  Buffer weight_;
  Buffer bias_;
};

}  // namespace octavo
