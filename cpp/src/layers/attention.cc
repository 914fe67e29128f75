#include "layers/attention.h"

namespace octavo {

void Attention::apply(const ForwardContext& context, const KvLayer& kv, const Tensor& x,
                      const Tensor& residual, const Tensor& out) const {
  const Arena::Scope scope(context.arena);
  const int64_t tokens = x.dim(0);
  const int64_t q_end = shape_.heads * shape_.head_dim;
  const int64_t k_end = q_end + shape_.kv_heads * shape_.head_dim;
  const Tensor qkv = context.activations(tokens, qkv_.out_features());
  qkv_.apply(context, x, qkv);
  const Tensor q = qkv.columns(0, q_end).split_last(shape_.heads);
  const Tensor k = qkv.columns(q_end, k_end).split_last(shape_.kv_heads);
  const Tensor v = qkv.columns(k_end, qkv_.out_features()).split_last(shape_.kv_heads);
  context.backend.rope_store({.q = q,
                              .k = k,
                              .v = v,
                              .cos_sin = rotary_ == nullptr ? Tensor() : rotary_->table(),
                              .cos_sin_rows = context.rotary_rows,
                              .slots = context.slots,
                              .kv = kv});
  const Tensor mixed = context.activations(tokens, q_end);
  context.backend.attention(
      {.q = q, .kv = kv, .scale = shape_.scale, .window = shape_.window, .out = mixed});
  output_.apply(context, mixed, out, Activation::kNone, residual);
}

}  // namespace octavo
