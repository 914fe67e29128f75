#include "models/decoder.h"

#include "base/check.h"

namespace octavo {

void Decoder::forward(const ForwardContext& context, std::span<const KvLayer> kv,
                      const Tensor& hidden) {
  OCTAVO_CHECK(kv.size() == layers_.size());
  embed(context, hidden);
  for (size_t i = 0; i < layers_.size(); ++i) run_layer(context, layers_[i], kv[i], hidden);
}

void Decoder::compute_logits(const ForwardContext& context, const Tensor& hidden,
                             const Tensor& rows, const Tensor& logits) {
  const Arena::Scope scope(context.arena);
  const Tensor selected = context.activations(rows.dim(0), shape_.hidden_size);
  context.backend.gather_rows({.x = hidden, .rows = rows, .out = selected});
  apply_head(context, selected, logits);
}

void Decoder::embed(const ForwardContext& context, const Tensor& hidden) {
  token_embedding_.lookup(context, context.token_ids, hidden);
}

void Decoder::run_layer(const ForwardContext& context, const DecoderLayer& layer, const KvLayer& kv,
                        const Tensor& hidden) {
  const Arena::Scope scope(context.arena);
  const Tensor normed = context.activations(context.num_tokens, shape_.hidden_size);
  layer.attention_norm.apply(context, hidden, normed);
  layer.attention.apply(context, kv, normed, hidden, hidden);
  layer.mlp_norm.apply(context, hidden, normed);
  layer.mlp.apply(context, normed, hidden, hidden);
}

void Decoder::apply_head(const ForwardContext& context, const Tensor& selected,
                         const Tensor& logits) {
  if (final_norm_) final_norm_.apply(context, selected, selected);
  head_.apply(context, selected, logits);
}

void Decoder::load_head(WeightLoader& loader, const std::string& name, bool tied) {
  head_ = tied ? Linear(token_embedding_.table(), Buffer())
               : loader.linear({{.name = name, .out_features = shape_.vocab_size}},
                               token_embedding_.dim(), false);
}

void Decoder::set_max_model_len(const ModelOptions& options, int64_t positions, const char* key) {
  if (options.max_model_len > positions) {
    throw InvalidArgument(str_cat("max_model_len: ", options.max_model_len,
                                  " is beyond the model's positions; expected at most ", positions,
                                  " (", key, ")"));
  }
  shape_.max_model_len = options.max_model_len == 0 ? positions : options.max_model_len;
}

}  // namespace octavo
