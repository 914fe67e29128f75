#include "weights/gguf_names.h"

#include <algorithm>
#include <array>
#include <span>

namespace octavo {
namespace {

// Names without their last component (".weight" or ".bias"), which is the same in both.
struct NamePair {
  std::string_view gguf;
  std::string_view hugging_face;
};

struct ArchitectureNames {
  std::string_view architecture;
  std::string_view layer_prefix;       // of Hugging Face; "blk." in GGUF
  std::span<const NamePair> global;    // once in a model
  std::span<const NamePair> in_layer;  // once in a layer, behind its number
};

constexpr NamePair kLlamaGlobal[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
    {"rope_freqs", "rope_freqs"},  // of Llama 3.1 and later; Hugging Face computes it
};
constexpr NamePair kLlamaLayer[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};
constexpr NamePair kGpt2Global[] = {
    {"token_embd", "transformer.wte"},
    {"position_embd", "transformer.wpe"},
    {"output_norm", "transformer.ln_f"},
    {"output", "lm_head"},
};
constexpr NamePair kGpt2Layer[] = {
    {"attn_norm", "ln_1"}, {"attn_qkv", "attn.c_attn"}, {"attn_output", "attn.c_proj"},
    {"ffn_norm", "ln_2"},  {"ffn_up", "mlp.c_fc"},      {"ffn_down", "mlp.c_proj"},
};
constexpr ArchitectureNames kArchitectures[] = {
    {"llama", "model.layers.", kLlamaGlobal, kLlamaLayer},
    {"gpt2", "transformer.h.", kGpt2Global, kGpt2Layer},
};

// "blk.12.attn_q" is "12." and "attn_q"; a global name has no layer.
struct SplitName {
  std::string_view layer;
  std::string_view noun;
};
SplitName split_layer(std::string_view stem) {
  constexpr std::string_view kBlock = "blk.";
  if (!stem.starts_with(kBlock)) return {"", stem};
  const std::string_view rest = stem.substr(kBlock.size());
  const size_t digits = std::min(rest.find_first_not_of("0123456789"), rest.size());
  if (digits == 0 || digits == rest.size() || rest[digits] != '.') return {"", stem};
  return {rest.substr(0, digits + 1), rest.substr(digits + 1)};
}

}  // namespace

std::string hugging_face_name(std::string_view architecture, std::string_view gguf_name) {
  const std::string unchanged(gguf_name);
  const auto* names =
      std::ranges::find(kArchitectures, architecture, &ArchitectureNames::architecture);
  const size_t dot = gguf_name.rfind('.');
  if (names == std::end(kArchitectures) || dot == std::string_view::npos) return unchanged;
  const std::string_view suffix = gguf_name.substr(dot);
  if (suffix != ".weight" && suffix != ".bias") return unchanged;

  const auto [layer, noun] = split_layer(gguf_name.substr(0, dot));
  const std::span<const NamePair> pairs = layer.empty() ? names->global : names->in_layer;
  const auto pair = std::ranges::find(pairs, noun, &NamePair::gguf);
  if (pair == pairs.end()) return unchanged;
  std::string result;
  if (!layer.empty()) result.append(names->layer_prefix).append(layer);
  return result.append(pair->hugging_face).append(suffix);
}

}  // namespace octavo
