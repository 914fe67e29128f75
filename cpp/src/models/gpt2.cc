// GPT-2: learned positions, LayerNorm before each block, one fused projection stored as Conv1D.
// Tensor names as in transformers' GPT2LMHeadModel.
#include <cmath>

#include "base/check.h"
#include "models/decoder.h"

namespace octavo {
namespace {

class Gpt2 : public Decoder {
 public:
  Gpt2(WeightLoader& loader, const ModelOptions& options);

 protected:
  void embed(const ForwardContext& context, const Tensor& hidden) override {
    Decoder::embed(context, hidden);
    position_embedding_.add(context, context.positions, hidden);
  }

 private:
  AttentionShape attention_shape(int64_t layer) const;
  DecoderLayer load_layer(WeightLoader& loader, int64_t index) const;

  const ConfigReader config_;
  float norm_eps_;
  Embedding position_embedding_;
};

Gpt2::Gpt2(WeightLoader& loader, const ModelOptions& options)
    : config_(loader.checkpoint().config()) {
  const int64_t heads = config_.count("n_head");
  shape_.hidden_size = config_.count("n_embd");
  check_divides("n_embd", shape_.hidden_size, "n_head", heads);
  shape_.vocab_size = config_.count("vocab_size");
  shape_.num_layers = config_.count("n_layer");
  shape_.num_kv_heads = heads;
  shape_.head_dim = shape_.hidden_size / heads;
  const int64_t positions = config_.count("n_positions");
  set_max_model_len(options, positions, "n_positions");
  norm_eps_ = static_cast<float>(config_.positive_or("layer_norm_epsilon", 1e-5));

  token_embedding_ =
      loader.embedding("transformer.wte.weight", shape_.vocab_size, shape_.hidden_size);
  position_embedding_ = loader.embedding("transformer.wpe.weight", positions, shape_.hidden_size);
  for (int64_t i = 0; i < shape_.num_layers; ++i) layers_.push_back(load_layer(loader, i));
  final_norm_ = loader.layer_norm("transformer.ln_f", shape_.hidden_size, norm_eps_);
  const bool tied = config_.flag_or("tie_word_embeddings", true);
  load_head(loader, "lm_head", tied);
  // Old checkpoints carry the causal masks.
  std::vector<std::string> ignored = {".attn.bias", ".attn.masked_bias"};
  if (tied) ignored.push_back("lm_head.weight");
  loader.finish(ignored);
}

AttentionShape Gpt2::attention_shape(int64_t layer) const {
  double scale = 1.0;
  if (config_.flag_or("scale_attn_weights", true)) {
    scale /= std::sqrt(static_cast<double>(shape_.head_dim));
  }
  if (config_.flag_or("scale_attn_by_inverse_layer_idx", false)) {
    scale /= static_cast<double>(layer + 1);
  }
  return {.heads = shape_.num_kv_heads,
          .kv_heads = shape_.num_kv_heads,
          .head_dim = shape_.head_dim,
          .scale = static_cast<float>(scale)};
}

DecoderLayer Gpt2::load_layer(WeightLoader& loader, int64_t index) const {
  const std::string prefix = str_cat("transformer.h.", index, ".");
  const int64_t hidden = shape_.hidden_size;
  const int64_t inner = config_.count_or("n_inner", 4 * hidden);
  Linear qkv = loader.conv1d(prefix + "attn.c_attn", hidden, 3 * hidden);
  Linear output = loader.conv1d(prefix + "attn.c_proj", hidden, hidden);
  Linear up = loader.conv1d(prefix + "mlp.c_fc", hidden, inner);
  Linear down = loader.conv1d(prefix + "mlp.c_proj", inner, hidden);
  return {
      .attention_norm = loader.layer_norm(prefix + "ln_1", hidden, norm_eps_),
      .attention = Attention(attention_shape(index), std::move(qkv), std::move(output), nullptr),
      .mlp_norm = loader.layer_norm(prefix + "ln_2", hidden, norm_eps_),
      .mlp = Mlp(false, config_.activation_or("activation_function", "gelu_new"), std::move(up),
                 std::move(down))};
}

}  // namespace

std::unique_ptr<Model> make_gpt2(WeightLoader& loader, const ModelOptions& options) {
  return std::make_unique<Gpt2>(loader, options);
}

}  // namespace octavo
