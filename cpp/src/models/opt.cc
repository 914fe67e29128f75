// OPT, 125m to 66b, and 350m, which normalises after each block and has narrower embeddings with
// projections. Tensor names as in transformers' OPTForCausalLM.
#include <cmath>

#include "base/check.h"
#include "models/decoder.h"

namespace octavo {
namespace {

class Opt : public Decoder {
 public:
  Opt(WeightLoader& loader, const ModelOptions& options);

 protected:
  void embed(const ForwardContext& context, const Tensor& hidden) override;
  void run_layer(const ForwardContext& context, const DecoderLayer& layer, const KvLayer& kv,
                 const Tensor& hidden) override;
  void apply_head(const ForwardContext& context, const Tensor& selected,
                  const Tensor& logits) override;

 private:
  void load_embeddings(WeightLoader& loader);
  DecoderLayer load_layer(WeightLoader& loader, const std::string& prefix) const;

  const ConfigReader config_;
  bool norm_before_;
  bool affine_;
  bool projected_;  // the embeddings have another width than the layers
  Embedding position_embedding_;
  Linear project_in_;
  Linear project_out_;
};

constexpr float kNormEps = 1e-5f;       // torch's default; OPT's configuration has none
constexpr int32_t kPositionOffset = 2;  // the first two rows of the table are for padding

Opt::Opt(WeightLoader& loader, const ModelOptions& options)
    : config_(loader.checkpoint().config()) {
  const int64_t heads = config_.count("num_attention_heads");
  shape_.hidden_size = config_.count("hidden_size");
  check_divides("hidden_size", shape_.hidden_size, "num_attention_heads", heads);
  shape_.vocab_size = config_.count("vocab_size");
  shape_.num_layers = config_.count("num_hidden_layers");
  shape_.num_kv_heads = heads;
  shape_.head_dim = shape_.hidden_size / heads;
  set_max_model_len(options, config_.count("max_position_embeddings"), "max_position_embeddings");
  norm_before_ = config_.flag_or("do_layer_norm_before", true);
  affine_ = config_.flag_or("layer_norm_elementwise_affine", true);

  load_embeddings(loader);
  for (int64_t i = 0; i < shape_.num_layers; ++i) {
    layers_.push_back(load_layer(loader, str_cat("model.decoder.layers.", i, ".")));
  }
  if (norm_before_ && !config_.flag_or("_remove_final_layer_norm", false)) {
    final_norm_ =
        loader.layer_norm("model.decoder.final_layer_norm", shape_.hidden_size, kNormEps, affine_);
  }
  const bool tied = config_.flag_or("tie_word_embeddings", true);
  load_head(loader, "lm_head", tied);
  loader.finish(tied ? std::vector<std::string>{"lm_head.weight"} : std::vector<std::string>{});
}

void Opt::load_embeddings(WeightLoader& loader) {
  const int64_t width = config_.count_or("word_embed_proj_dim", shape_.hidden_size);
  projected_ = width != shape_.hidden_size;
  token_embedding_ =
      loader.embedding("model.decoder.embed_tokens.weight", shape_.vocab_size, width);
  position_embedding_ = loader.embedding("model.decoder.embed_positions.weight",
                                         config_.count("max_position_embeddings") + kPositionOffset,
                                         shape_.hidden_size, kPositionOffset);
  if (!projected_) return;
  project_in_ = loader.linear({{"model.decoder.project_in", shape_.hidden_size}}, width, false);
  project_out_ = loader.linear({{"model.decoder.project_out", width}}, shape_.hidden_size, false);
}

DecoderLayer Opt::load_layer(WeightLoader& loader, const std::string& prefix) const {
  const int64_t hidden = shape_.hidden_size;
  const int64_t ffn = config_.count_or("ffn_dim", 4 * hidden);
  const bool bias = config_.flag_or("enable_bias", true);
  const AttentionShape attention{
      .heads = shape_.num_kv_heads,
      .kv_heads = shape_.num_kv_heads,
      .head_dim = shape_.head_dim,
      .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape_.head_dim)))};
  const std::string self = prefix + "self_attn.";
  Linear qkv = loader.linear(
      {{self + "q_proj", hidden}, {self + "k_proj", hidden}, {self + "v_proj", hidden}}, hidden,
      bias);
  Linear output = loader.linear({{self + "out_proj", hidden}}, hidden, bias);
  Linear up = loader.linear({{prefix + "fc1", ffn}}, hidden, bias);
  Linear down = loader.linear({{prefix + "fc2", hidden}}, ffn, bias);
  return {.attention_norm =
              loader.layer_norm(prefix + "self_attn_layer_norm", hidden, kNormEps, affine_),
          .attention = Attention(attention, std::move(qkv), std::move(output), nullptr),
          .mlp_norm = loader.layer_norm(prefix + "final_layer_norm", hidden, kNormEps, affine_),
          .mlp = Mlp(false, config_.activation_or("activation_function", "relu"), std::move(up),
                     std::move(down))};
}

void Opt::embed(const ForwardContext& context, const Tensor& hidden) {
  if (projected_) {
    const Arena::Scope scope(context.arena);
    const Tensor narrow = context.activations(context.num_tokens, token_embedding_.dim());
    token_embedding_.lookup(context, context.token_ids, narrow);
    project_in_.apply(context, narrow, hidden);
  } else {
    Decoder::embed(context, hidden);
  }
  position_embedding_.add(context, context.positions, hidden);
}

void Opt::run_layer(const ForwardContext& context, const DecoderLayer& layer, const KvLayer& kv,
                    const Tensor& hidden) {
  if (norm_before_) {
    Decoder::run_layer(context, layer, kv, hidden);
    return;
  }
  layer.attention.apply(context, kv, hidden, hidden, hidden);
  layer.attention_norm.apply(context, hidden, hidden);
  layer.mlp.apply(context, hidden, hidden, hidden);
  layer.mlp_norm.apply(context, hidden, hidden);
}

void Opt::apply_head(const ForwardContext& context, const Tensor& selected, const Tensor& logits) {
  if (!projected_) {
    Decoder::apply_head(context, selected, logits);
    return;
  }
  if (final_norm_) final_norm_.apply(context, selected, selected);
  const Tensor narrow = context.activations(selected.dim(0), token_embedding_.dim());
  project_out_.apply(context, selected, narrow);
  head_.apply(context, narrow, logits);
}

}  // namespace

std::unique_ptr<Model> make_opt(WeightLoader& loader, const ModelOptions& options) {
  return std::make_unique<Opt>(loader, options);
}

}  // namespace octavo
