// The attention block of a decoder layer: one fused projection to q, k and v, rotation, the paged
// KV cache, and the output projection. Owned by a model, immutable after loading.
#pragma once

#include "layers/linear.h"
#include "layers/rotary.h"

namespace octavo {

struct AttentionShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 0.0f;  // of the scores, before the softmax
  int32_t window = 0;  // tokens, the own one included; 0: all
};

class Attention {
 public:
  Attention() = default;
  // `qkv` is [(heads + 2 * kv_heads) * head_dim, hidden], q first. `rotary` may be null (no
  // rotation) and must outlive the layer.
  Attention(const AttentionShape& shape, Linear qkv, Linear output, const Rotary* rotary)
      : shape_(shape), qkv_(std::move(qkv)), output_(std::move(output)), rotary_(rotary) {}

  // out [tokens, hidden] = residual + attention(x [tokens, hidden]); out may be residual or x.
  void apply(const ForwardContext& context, const KvLayer& kv, const Tensor& x,
             const Tensor& residual, const Tensor& out) const;

 private:
  AttentionShape shape_;
  Linear qkv_;
  Linear output_;
  const Rotary* rotary_ = nullptr;
};

}  // namespace octavo
