#include "weights/gguf_config.h"

#include <cmath>

#include "base/check.h"
#include "base/printable.h"

namespace octavo {
namespace {

constexpr int64_t kMaxCount = INT32_MAX;  // of anything that a configuration counts

// Typed look-ups whose errors name the file and the key.
class Metadata {
 public:
  Metadata(const GgufMetadata& values, const std::string& path) : values_(values), path_(path) {}

  // Keys without a dot in front are as they stand; ".block_count" is behind the architecture's
  // name.
  void set_architecture(std::string architecture) { architecture_ = std::move(architecture); }

  bool has(const std::string& key) const { return values_.contains(full(key)); }

  int64_t count(const std::string& key) const { return *integer(key, 1, true); }
  std::optional<int64_t> optional_count(const std::string& key) const {
    return integer(key, 1, false);
  }
  std::optional<int64_t> optional_id(const std::string& key) const {
    return integer(key, 0, false);
  }

  double number(const std::string& key) const { return *positive(key, true); }
  std::optional<double> optional_number(const std::string& key) const {
    return positive(key, false);
  }

  std::optional<std::string> optional_text(const std::string& key) const {
    const GgufValue* value = find(key, false);
    if (value == nullptr) return std::nullopt;
    const auto* text = std::get_if<std::string>(value);
    if (text == nullptr) fail(key, "is not a string", "one");
    return *text;
  }

  [[noreturn]] void fail(const std::string& key, const std::string& problem,
                         const std::string& expected) const {
    throw LoadError(
        str_cat(path_, ": metadata '", full(key), "' ", problem, "; expected ", expected));
  }

 private:
  std::string full(const std::string& key) const {
    return key.starts_with('.') ? architecture_ + key : key;
  }

  const GgufValue* find(const std::string& key, bool required) const {
    const auto found = values_.find(full(key));
    if (found != values_.end()) return &found->second;
    if (required) fail(key, "is missing", "it in a GGUF file of this architecture");
    return nullptr;
  }

  std::optional<int64_t> integer(const std::string& key, int64_t least, bool required) const {
    const GgufValue* value = find(key, required);
    if (value == nullptr) return std::nullopt;
    const auto* integer = std::get_if<int64_t>(value);
    if (integer == nullptr || *integer < least || *integer > kMaxCount) {
      fail(key, integer == nullptr ? "is not an integer" : str_cat("is ", *integer),
           str_cat("an integer from ", least, " to ", kMaxCount));
    }
    return *integer;
  }

  std::optional<double> positive(const std::string& key, bool required) const {
    const GgufValue* value = find(key, required);
    if (value == nullptr) return std::nullopt;
    const auto* number = std::get_if<double>(value);
    if (number == nullptr || !std::isfinite(*number) || *number <= 0) {
      fail(key, number == nullptr ? "is not a floating-point number" : str_cat("is ", *number),
           "a positive number");
    }
    return *number;
  }

  const GgufMetadata& values_;
  const std::string& path_;
  std::string architecture_;
};

void set_special_ids(const Metadata& metadata, Json& config) {
  if (const auto id = metadata.optional_id("tokenizer.ggml.bos_token_id")) {
    config["bos_token_id"] = *id;
  }
  if (const auto id = metadata.optional_id("tokenizer.ggml.eos_token_id")) {
    config["eos_token_id"] = *id;
  }
}

// The rows of the embedding count, where the metadata does not.
int64_t vocab_size(const Metadata& metadata, const TensorTable& table,
                   const std::string& embedding) {
  if (const auto size = metadata.optional_count(".vocab_size")) return *size;
  const auto found = table.tensors().find(embedding);
  if (found == table.tensors().end() || found->second.shape.empty() ||
      found->second.shape[0] > kMaxCount) {
    metadata.fail(".vocab_size", "is missing", "it, or a tensor 'token_embd.weight'");
  }
  return found->second.shape[0];
}

// In ggml the factor that the file gives multiplies YaRN's own; in Hugging Face's form it replaces
// it.
void set_yarn(const Metadata& metadata, double factor, Json& scaling) {
  if (const auto length = metadata.optional_count(".rope.scaling.original_context_length")) {
    scaling["original_max_position_embeddings"] = *length;
  }
  if (const auto beta = metadata.optional_number(".rope.scaling.yarn_beta_fast")) {
    scaling["beta_fast"] = *beta;
  }
  if (const auto beta = metadata.optional_number(".rope.scaling.yarn_beta_slow")) {
    scaling["beta_slow"] = *beta;
  }
  if (const auto attention = metadata.optional_number(".rope.scaling.attn_factor")) {
    scaling["attention_factor"] = *attention * (factor > 1.0 ? 0.1 * std::log(factor) + 1.0 : 1.0);
  }
}

// Null where positions are not scaled.
Json rope_scaling(const Metadata& metadata) {
  const std::string key = ".rope.scaling.type";
  std::optional<std::string> type = metadata.optional_text(key);
  std::string factor_key = ".rope.scaling.factor";
  if (!type && metadata.has(".rope.scale_linear")) {  // the form of older files
    type = "linear";
    factor_key = ".rope.scale_linear";
  }
  if (!type || *type == "none") return nullptr;
  if (*type != "linear" && *type != "yarn") {
    metadata.fail(key, str_cat("is '", printable(*type), "'"), "none, linear or yarn");
  }
  Json scaling = {{"rope_type", *type}, {"factor", metadata.number(factor_key)}};
  if (*type == "yarn") set_yarn(metadata, scaling["factor"].get<double>(), scaling);
  return scaling;
}

// Also checks that what the metadata can say and the architecture cannot do is not said.
int64_t llama_head_dim(const Metadata& metadata, int64_t hidden, int64_t heads) {
  const auto key_length = metadata.optional_count(".attention.key_length");
  if (!key_length && hidden % heads != 0) {
    metadata.fail(".attention.head_count", str_cat("is ", heads), str_cat("a divisor of ", hidden));
  }
  const int64_t head_dim = key_length.value_or(hidden / heads);
  for (const char* key : {".attention.value_length", ".rope.dimension_count"}) {
    const int64_t value = metadata.optional_count(key).value_or(head_dim);
    if (value != head_dim) {
      metadata.fail(key, str_cat("is ", value), str_cat("the size of a head, ", head_dim));
    }
  }
  if (metadata.optional_id(".expert_count").value_or(0) != 0) {
    metadata.fail(".expert_count", "is not zero", "a model without experts");
  }
  return head_dim;
}

Json llama_config(const Metadata& metadata, const TensorTable& table) {
  const int64_t hidden = metadata.count(".embedding_length");
  const int64_t heads = metadata.count(".attention.head_count");
  Json config = {
      {"architectures", {"LlamaForCausalLM"}},
      {"model_type", "llama"},
      {"hidden_size", hidden},
      {"intermediate_size", metadata.count(".feed_forward_length")},
      {"num_hidden_layers", metadata.count(".block_count")},
      {"num_attention_heads", heads},
      {"num_key_value_heads", metadata.optional_count(".attention.head_count_kv").value_or(heads)},
      {"head_dim", llama_head_dim(metadata, hidden, heads)},
      {"hidden_act", "silu"},
      {"vocab_size", vocab_size(metadata, table, "model.embed_tokens.weight")},
      {"max_position_embeddings", metadata.count(".context_length")},
      {"rms_norm_eps", metadata.number(".attention.layer_norm_rms_epsilon")},
      {"rope_theta", metadata.optional_number(".rope.freq_base").value_or(10000.0)},
      {"attention_bias", table.has("model.layers.0.self_attn.q_proj.bias")},
      {"mlp_bias", table.has("model.layers.0.mlp.up_proj.bias")},
  };
  if (Json scaling = rope_scaling(metadata); !scaling.is_null()) {
    config["rope_scaling"] = std::move(scaling);
  }
  return config;
}

Json gpt2_config(const Metadata& metadata, const TensorTable& table) {
  const int64_t positions = metadata.count(".context_length");
  Json config = {
      {"architectures", {"GPT2LMHeadModel"}},
      {"model_type", "gpt2"},
      {"n_embd", metadata.count(".embedding_length")},
      {"n_layer", metadata.count(".block_count")},
      {"n_head", metadata.count(".attention.head_count")},
      {"n_positions", positions},
      {"n_ctx", positions},
      {"layer_norm_epsilon", metadata.number(".attention.layer_norm_epsilon")},
      {"activation_function", "gelu_new"},
      {"vocab_size", vocab_size(metadata, table, "transformer.wte.weight")},
  };
  if (const auto inner = metadata.optional_count(".feed_forward_length"))
    config["n_inner"] = *inner;
  return config;
}

void check_not_split(const Metadata& metadata) {
  const int64_t parts = metadata.optional_id("split.count").value_or(0);
  if (parts > 1) {
    metadata.fail("split.count", str_cat("is ", parts), "a single file: merge the parts first");
  }
}

}  // namespace

std::string gguf_architecture(const GgufMetadata& metadata, const std::string& path) {
  const Metadata values(metadata, path);
  const auto architecture = values.optional_text("general.architecture");
  if (!architecture) values.fail("general.architecture", "is missing", "llama or gpt2");
  if (*architecture != "llama" && *architecture != "gpt2") {
    values.fail("general.architecture",
                str_cat("is '", printable(*architecture), "', which is not supported"),
                "llama or gpt2");
  }
  return *architecture;
}

Json gguf_config(const GgufMetadata& metadata, const TensorTable& table, const std::string& path) {
  Metadata values(metadata, path);
  const std::string architecture = gguf_architecture(metadata, path);
  values.set_architecture(architecture);
  check_not_split(values);
  Json config = architecture == "llama" ? llama_config(values, table) : gpt2_config(values, table);
  config["tie_word_embeddings"] = !table.has("lm_head.weight");
  set_special_ids(values, config);
  return config;
}

}  // namespace octavo
