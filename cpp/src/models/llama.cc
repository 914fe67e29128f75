// Llama 1 to 3.2 and the models of its shape (Mistral): RMSNorm before each block, rotary
// positions, grouped-query attention, a gated MLP. Tensor names as in transformers'
// LlamaForCausalLM.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "models/decoder.h"

namespace octavo {
namespace {

class Llama : public Decoder {
 public:
  Llama(WeightLoader& loader, const ModelOptions& options);

 private:
  // Llama's files may carry a sliding_window that transformers ignores; Mistral's default is 4096.
  int32_t mistral_window() const {
    return static_cast<int32_t>(
        config_.json().contains("sliding_window") ? config_.count_or("sliding_window", 0) : 4096);
  }
  void load_rotary(WeightLoader& loader, const ModelOptions& options);
  DecoderLayer load_layer(WeightLoader& loader, const std::string& prefix) const;

  const ConfigReader config_;
  int64_t intermediate_size_;
  AttentionShape attention_shape_;
  float norm_eps_;
};

Llama::Llama(WeightLoader& loader, const ModelOptions& options)
    : config_(loader.checkpoint().config()) {
  const int64_t heads = config_.count("num_attention_heads");
  const int64_t kv_heads = config_.count_or("num_key_value_heads", heads);
  shape_.hidden_size = config_.count("hidden_size");
  if (!config_.has("head_dim")) {
    check_divides("hidden_size", shape_.hidden_size, "num_attention_heads", heads);
  }
  check_divides("num_attention_heads", heads, "num_key_value_heads", kv_heads);
  shape_.head_dim = config_.count_or("head_dim", shape_.hidden_size / heads);
  shape_.vocab_size = config_.count("vocab_size");
  shape_.num_layers = config_.count("num_hidden_layers");
  shape_.num_kv_heads = kv_heads;
  intermediate_size_ = config_.count("intermediate_size");
  norm_eps_ = static_cast<float>(config_.positive_or("rms_norm_eps", 1e-6));
  attention_shape_ = {
      .heads = heads,
      .kv_heads = kv_heads,
      .head_dim = shape_.head_dim,
      .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape_.head_dim))),
      .window = loader.checkpoint().architecture() == "MistralForCausalLM" ? mistral_window() : 0};
  load_rotary(loader, options);

  token_embedding_ =
      loader.embedding("model.embed_tokens.weight", shape_.vocab_size, shape_.hidden_size);
  for (int64_t i = 0; i < shape_.num_layers; ++i) {
    layers_.push_back(load_layer(loader, str_cat("model.layers.", i, ".")));
  }
  rotary_->build();
  final_norm_ = loader.rms_norm("model.norm", shape_.hidden_size, norm_eps_);
  const bool tied = config_.flag_or("tie_word_embeddings", false);
  load_head(loader, "lm_head", tied);
  std::vector<std::string> ignored = {"rotary_emb.inv_freq"};
  if (tied) ignored.push_back("lm_head.weight");  // a copy of the embedding
  loader.finish(ignored);
}

void Llama::load_rotary(WeightLoader& loader, const ModelOptions& options) {
  RopeConfig rope = read_rope_config(config_.json(), shape_.head_dim,
                                     config_.count_or("max_position_embeddings", 2048));
  rope.frequency_divisors = loader.optional_vector("rope_freqs.weight", rope.dim / 2);
  set_max_model_len(options, rope.scaled_max_positions(), "max_position_embeddings, rope scaling");
  rotary_ = std::make_unique<Rotary>(
      loader.backend(), rope, shape_.max_model_len,
      std::min(options.max_batch_tokens, shape_.max_model_len * options.max_num_seqs));
}

DecoderLayer Llama::load_layer(WeightLoader& loader, const std::string& prefix) const {
  const int64_t hidden = shape_.hidden_size, heads = attention_shape_.heads;
  const int64_t q_size = heads * shape_.head_dim, kv_size = shape_.num_kv_heads * shape_.head_dim;
  const bool attention_bias = config_.flag_or("attention_bias", false);
  const bool mlp_bias = config_.flag_or("mlp_bias", false);
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  Linear qkv = loader.linear({{attention + "q_proj", q_size, heads},
                              {attention + "k_proj", kv_size, shape_.num_kv_heads},
                              {attention + "v_proj", kv_size}},
                             hidden, attention_bias);
  Linear output = loader.linear({{attention + "o_proj", hidden}}, q_size, attention_bias);
  Linear gate_up = loader.linear(
      {{mlp + "gate_proj", intermediate_size_}, {mlp + "up_proj", intermediate_size_}}, hidden,
      mlp_bias);
  Linear down = loader.linear({{mlp + "down_proj", hidden}}, intermediate_size_, mlp_bias);
  return {
      .attention_norm = loader.rms_norm(prefix + "input_layernorm", hidden, norm_eps_),
      .attention = Attention(attention_shape_, std::move(qkv), std::move(output), rotary_.get()),
      .mlp_norm = loader.rms_norm(prefix + "post_attention_layernorm", hidden, norm_eps_),
      .mlp = Mlp(true, config_.activation_or("hidden_act", "silu"), std::move(gate_up),
                 std::move(down))};
}

}  // namespace

std::unique_ptr<Model> make_llama(WeightLoader& loader, const ModelOptions& options) {
  return std::make_unique<Llama>(loader, options);
}

}  // namespace octavo
