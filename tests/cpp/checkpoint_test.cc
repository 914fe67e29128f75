#include "weights/checkpoint.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "octavo/error.h"
#include "quant/decode.h"
#include "weight_files.h"

namespace octavo {
namespace {

using test::contains;
using test::GgufWriter;
using test::message_of;
using test::raw_floats;
using test::TempDir;

constexpr const char* kConfig = R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 4})";

std::string open_error(const std::string& path, std::string_view load_format = "auto") {
  return message_of<LoadError>([&] { open_checkpoint(path, load_format); });
}

std::string one_tensor(std::string_view name) {
  return test::safetensors(
      "{\"" + std::string(name) + R"(": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})",
      raw_floats({1, 2}));
}

std::vector<float> values_of(const WeightTensor& tensor) {
  const QuantizedMatrix matrix = tensor.matrix();
  std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.cols));
  for (int64_t i = 0; i < matrix.rows; ++i) decode_row(matrix, i, values.data() + i * matrix.cols);
  return values;
}

TEST_CASE("a directory with safetensors opens") {
  const TempDir dir;
  dir.write("config.json", kConfig);
  dir.write("model.safetensors", one_tensor("model.norm.weight"));
  for (const char* format : {"auto", "safetensors"}) {
    const auto checkpoint = open_checkpoint(dir.path(), format);
    CHECK(checkpoint->architecture() == "LlamaForCausalLM");
    CHECK(checkpoint->config().at("hidden_size") == 4);
    CHECK(checkpoint->main_scheme() == Scheme::kF32);
    CHECK_FALSE(checkpoint->interleaved_rotary());
    CHECK(checkpoint->conv1d_transposed());
    CHECK(checkpoint->has("model.norm.weight"));
    CHECK_FALSE(checkpoint->has("lm_head.weight"));
    CHECK(checkpoint->unused() == std::vector<std::string>{"model.norm.weight"});
    const WeightTensor norm = checkpoint->take("model.norm.weight", {2});
    CHECK(norm.name == "model.norm.weight");
    CHECK(values_of(norm) == std::vector<float>{1, 2});
    CHECK(checkpoint->unused().empty());
  }
}

TEST_CASE("a missing tensor and a wrong shape are errors that name the tensor") {
  const TempDir dir;
  dir.write("config.json", kConfig);
  dir.write("model.safetensors", one_tensor("model.norm.weight"));
  const auto checkpoint = open_checkpoint(dir.path(), "auto");
  CHECK(message_of<LoadError>([&] { checkpoint->take("x", {2}); }) ==
        "model.safetensors: tensor 'x' is missing");
  CHECK(message_of<LoadError>([&] { checkpoint->take("model.norm.weight", {2, 1}); }) ==
        "model.norm.weight: shape [2] in the file; expected [2, 1]");
  CHECK(checkpoint->unused().size() == 1);
}

TEST_CASE("names are found without the base model's prefix") {
  for (const char* prefix : {"transformer.", "model."}) {
    const TempDir dir;
    dir.write("config.json", kConfig);
    dir.write("model.safetensors", one_tensor("h.0.ln.weight"));
    const auto checkpoint = open_checkpoint(dir.path(), "auto");
    const std::string name = std::string(prefix) + "h.0.ln.weight";
    CHECK(checkpoint->has(name));
    CHECK(checkpoint->unused() == std::vector<std::string>{"h.0.ln.weight"});
    CHECK(checkpoint->take(name, {2}).name == name);
    CHECK(checkpoint->unused().empty());
    CHECK_FALSE(checkpoint->has("other.h.0.ln.weight"));
    CHECK_FALSE(checkpoint->has("h.0.ln.bias"));
  }
}

TEST_CASE("a file that shrinks after it was opened is an error when a tensor is taken") {
  const TempDir dir;
  dir.write("config.json", kConfig);
  const std::string content = one_tensor("w");
  const std::string path = dir.write("model.safetensors", content);
  const auto checkpoint = open_checkpoint(dir.path(), "auto");
  CHECK(values_of(checkpoint->take("w", {2})) == std::vector<float>{1, 2});
  REQUIRE(::truncate(path.c_str(), static_cast<off_t>(content.size() - 1)) == 0);
  const std::string message = message_of<LoadError>([&] { checkpoint->take("w", {2}); });
  CHECK(message.starts_with(path));
  CHECK(contains(message, "shrank from"));
}

TEST_CASE("a file that is replaced stays as it was opened") {
  const TempDir dir;
  dir.write("config.json", kConfig);
  const std::string path = dir.write("model.safetensors", one_tensor("w"));
  const auto checkpoint = open_checkpoint(dir.path(), "auto");
  std::filesystem::rename(dir.write("other", ""), path);
  CHECK(values_of(checkpoint->take("w", {2})) == std::vector<float>{1, 2});
}

TEST_CASE("what is no model is an error that says what was expected") {
  const TempDir dir;
  CHECK(contains(open_error(dir.file("none")), "No such file"));
  CHECK(contains(open_error(dir.path()), "has no weights; expected model.safetensors"));
  dir.write("model.safetensors", one_tensor("w"));
  CHECK(contains(open_error(dir.path()), "config.json: cannot be opened"));
  CHECK(
      contains(open_error(dir.file("model.safetensors")), "expected a directory with config.json"));
  CHECK_THROWS_AS(open_checkpoint(dir.path(), "pickle"), InvalidArgument);
  CHECK(contains(open_error(dir.path(), "gguf"), "has no weights"));
}

TEST_CASE("a configuration that is malformed is an error") {
  const TempDir dir;
  dir.write("model.safetensors", one_tensor("w"));
  for (const char* config : {"{}", R"({"architectures": []})", R"({"architectures": [7]})",
                             R"({"architectures": "L"})"}) {
    CAPTURE(config);
    dir.write("config.json", config);
    CHECK(contains(open_error(dir.path()), "config.json: 'architectures' is missing"));
  }
  dir.write("config.json", "[]");
  CHECK(contains(open_error(dir.path()), "config.json: is not an object"));
  dir.write("config.json", "");
  CHECK(contains(open_error(dir.path()), "expected valid JSON"));
  dir.write("config.json", std::string(100000, '['));
  CHECK(contains(open_error(dir.path()), "nested too deeply"));
}

TEST_CASE("keys that occur twice in a configuration: the last counts") {
  CHECK(parse_json(R"({"a": 1, "a": 2})", "x").at("a") == 2);
}

TEST_CASE("pickle files are never read") {
  const TempDir dir;
  dir.write("config.json", kConfig);
  const std::string pickle = dir.write("pytorch_model.bin", "\x80\x02}q");
  for (const std::string& path : {dir.path(), pickle}) {
    const std::string message = open_error(path);
    CHECK(contains(message, "pytorch_model.bin"));
    CHECK(contains(message, "never reads pickle"));
    CHECK(contains(message, "save_pretrained"));
  }
}

// The metadata of a llama file of two heads; every key may be left out or added to.
GgufWriter llama_metadata(std::string_view without = "") {
  GgufWriter writer;
  writer.string("general.architecture", "llama");
  const std::pair<const char*, uint32_t> counts[] = {
      {"block_count", 1},          {"context_length", 64},      {"embedding_length", 8},
      {"feed_forward_length", 16}, {"attention.head_count", 2}, {"attention.head_count_kv", 1}};
  for (const auto& [key, count] : counts) {
    if (key != without) writer.integer(std::string("llama.") + key, count);
  }
  if (without != "attention.layer_norm_rms_epsilon") {
    writer.real("llama.attention.layer_norm_rms_epsilon", 0.5f);
  }
  return writer;
}

std::string floats(size_t count) { return raw_floats(std::vector<float>(count, 1.0f)); }

Json config_of(const GgufWriter& writer) {
  const TempDir dir;
  return open_checkpoint(dir.write("m.gguf", writer.finish()), "auto")->config();
}

TEST_CASE("a llama GGUF gives the configuration in Hugging Face's form") {
  const TempDir dir;
  GgufWriter writer = llama_metadata();
  writer.real("llama.rope.freq_base", 100000.0f).integer("tokenizer.ggml.bos_token_id", 1);
  writer.integer("tokenizer.ggml.eos_token_id", 2);
  writer.tensor("token_embd.weight", {8, 10}, 0, floats(80));
  writer.tensor("blk.0.attn_q.weight", {8, 8}, 0, floats(64));
  writer.tensor("rope_freqs.weight", {2}, 0, floats(2));
  writer.tensor("what.is.this", {1}, 0, floats(1));
  const auto checkpoint = open_checkpoint(dir.write("m.gguf", writer.finish()), "auto");
  CHECK(checkpoint->architecture() == "LlamaForCausalLM");
  CHECK(checkpoint->interleaved_rotary());
  CHECK(checkpoint->config() == Json::parse(R"({
      "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8,
      "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
      "num_key_value_heads": 1, "head_dim": 4, "hidden_act": "silu", "vocab_size": 10,
      "max_position_embeddings": 64, "rms_norm_eps": 0.5, "rope_theta": 100000.0,
      "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": true,
      "bos_token_id": 1, "eos_token_id": 2})"));
  CHECK(checkpoint->take("model.embed_tokens.weight", {10, 8}).data.size() == 320);
  CHECK(checkpoint->take("rope_freqs.weight", {2}).shape.size() == 1);
  CHECK(checkpoint->unused() ==
        std::vector<std::string>{"model.layers.0.self_attn.q_proj.weight", "what.is.this"});
  CHECK(message_of<LoadError>([&] { checkpoint->take("model.norm.weight", {8}); }) ==
        "m.gguf: tensor 'model.norm.weight' is missing");
}

TEST_CASE("the tensors of a GGUF tell of ties and biases, its metadata of the rest") {
  GgufWriter writer = llama_metadata("attention.head_count_kv");
  writer.integer("llama.vocab_size", 12).integer("llama.attention.key_length", 16);
  writer.tensor("output.weight", {8, 12}, 0, floats(96));
  writer.tensor("blk.0.attn_q.bias", {8}, 0, floats(8));
  writer.tensor("blk.0.ffn_up.bias", {8}, 0, floats(8));
  const Json config = config_of(writer);
  CHECK(config.at("num_key_value_heads") == 2);
  CHECK(config.at("vocab_size") == 12);
  CHECK(config.at("head_dim") == 16);
  CHECK(config.at("rope_theta") == 10000.0);
  CHECK(config.at("tie_word_embeddings") == false);
  CHECK(config.at("attention_bias") == true);
  CHECK(config.at("mlp_bias") == true);
  CHECK_FALSE(config.contains("rope_scaling"));
}

TEST_CASE("rope scaling of a GGUF") {
  GgufWriter linear = llama_metadata();
  linear.integer("llama.vocab_size", 1).string("llama.rope.scaling.type", "linear");
  linear.real("llama.rope.scaling.factor", 4.0f);
  CHECK(config_of(linear).at("rope_scaling") ==
        Json::parse(R"({"rope_type": "linear", "factor": 4.0})"));
  GgufWriter old = llama_metadata();
  old.integer("llama.vocab_size", 1).real("llama.rope.scale_linear", 2.0f);
  CHECK(config_of(old).at("rope_scaling") ==
        Json::parse(R"({"rope_type": "linear", "factor": 2.0})"));

  GgufWriter yarn = llama_metadata();
  yarn.integer("llama.vocab_size", 1).string("llama.rope.scaling.type", "yarn");
  yarn.real("llama.rope.scaling.factor", 8.0f).real("llama.rope.scaling.attn_factor", 0.5f);
  yarn.integer("llama.rope.scaling.original_context_length", 32);
  const Json scaling = config_of(yarn).at("rope_scaling");
  CHECK(scaling.at("rope_type") == "yarn");
  CHECK(scaling.at("factor") == 8.0);
  CHECK(scaling.at("original_max_position_embeddings") == 32);
  CHECK(scaling.at("attention_factor").get<double>() ==
        doctest::Approx(0.5 * (0.1 * std::log(8.0) + 1.0)));

  GgufWriter none = llama_metadata();
  none.integer("llama.vocab_size", 1).string("llama.rope.scaling.type", "none");
  CHECK_FALSE(config_of(none).contains("rope_scaling"));
}

std::string gguf_error(const GgufWriter& writer) {
  const TempDir dir;
  return open_error(dir.write("m.gguf", writer.finish()));
}

TEST_CASE("metadata that a GGUF lacks is an error that names the key") {
  for (const char* key :
       {"block_count", "context_length", "embedding_length", "feed_forward_length",
        "attention.head_count", "attention.layer_norm_rms_epsilon"}) {
    CAPTURE(key);
    const std::string message = gguf_error(llama_metadata(key).integer("llama.vocab_size", 1));
    CHECK(contains(message, "m.gguf: metadata 'llama." + std::string(key) + "' is missing"));
  }
  CHECK(contains(gguf_error(llama_metadata()), "'llama.vocab_size' is missing"));
  CHECK(contains(gguf_error(GgufWriter()), "'general.architecture' is missing"));
  CHECK(contains(gguf_error(GgufWriter().string("general.architecture", "mam\nba")),
                 "is 'mam\\x0aba', which is not supported; expected llama or gpt2"));
}

TEST_CASE("metadata that makes no sense is an error that names the key") {
  const auto error_with = [](std::string_view key, uint32_t value) {
    return gguf_error(llama_metadata().integer("llama.vocab_size", 1).integer(key, value));
  };
  CHECK(contains(error_with("llama.expert_count", 8), "'llama.expert_count' is not zero"));
  CHECK(contains(error_with("split.count", 3), "'split.count' is 3; expected a single file"));
  CHECK(contains(error_with("llama.rope.dimension_count", 2), "expected the size of a head, 4"));
  CHECK(contains(error_with("llama.attention.value_length", 2), "expected the size of a head, 4"));
  CHECK(contains(error_with("llama.rope.freq_base", 1), "is not a floating-point number"));
  CHECK(contains(error_with("tokenizer.ggml.bos_token_id", 0xffffffff), "an integer from 0 to"));
  CHECK(contains(error_with("llama.rope.scaling.type", 1), "is not a string"));
  const auto error_of = [](const char* key, uint32_t value) {
    GgufWriter writer = llama_metadata(key);
    return gguf_error(
        writer.integer("llama.vocab_size", 1).integer(std::string("llama.") + key, value));
  };
  CHECK(contains(error_of("attention.head_count", 0), "is 0; expected an integer from 1"));
  CHECK(contains(error_of("attention.head_count", 3), "is 3; expected a divisor of 8"));
  CHECK(contains(error_of("block_count", 0xffffffff), "is 4294967295; expected an integer from 1"));
  GgufWriter longrope = llama_metadata();
  longrope.integer("llama.vocab_size", 1).string("llama.rope.scaling.type", "longrope");
  CHECK(contains(gguf_error(longrope), "'longrope'; expected none, linear or yarn"));
  GgufWriter nan = llama_metadata("attention.layer_norm_rms_epsilon");
  nan.integer("llama.vocab_size", 1).real("llama.attention.layer_norm_rms_epsilon", NAN);
  CHECK(contains(gguf_error(nan), "expected a positive number"));
}

TEST_CASE("a gpt2 GGUF gives the configuration in Hugging Face's form") {
  const TempDir dir;
  GgufWriter writer;
  writer.string("general.architecture", "gpt2").integer("gpt2.block_count", 1);
  writer.integer("gpt2.context_length", 32).integer("gpt2.embedding_length", 8);
  writer.integer("gpt2.feed_forward_length", 32).integer("gpt2.attention.head_count", 2);
  writer.real("gpt2.attention.layer_norm_epsilon", 0.25f);
  writer.tensor("token_embd.weight", {8, 10}, 0, floats(80));
  writer.tensor("blk.0.attn_qkv.weight", {8, 24}, 0, floats(192));
  const auto checkpoint = open_checkpoint(dir.write("m.gguf", writer.finish()), "gguf");
  CHECK_FALSE(checkpoint->interleaved_rotary());
  CHECK_FALSE(checkpoint->conv1d_transposed());
  CHECK(checkpoint->config() == Json::parse(R"({
      "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 8, "n_layer": 1,
      "n_head": 2, "n_positions": 32, "n_ctx": 32, "layer_norm_epsilon": 0.25, "n_inner": 32,
      "activation_function": "gelu_new", "vocab_size": 10, "tie_word_embeddings": true})"));
  CHECK(checkpoint->take("transformer.h.0.attn.c_attn.weight", {24, 8}).data.size() == 768);
}

TEST_CASE("a directory may hold one GGUF") {
  const TempDir dir;
  const std::string content = llama_metadata().integer("llama.vocab_size", 1).finish();
  dir.write("m.gguf", content);
  CHECK(open_checkpoint(dir.path(), "auto")->architecture() == "LlamaForCausalLM");
  CHECK(open_checkpoint(dir.path(), "gguf")->interleaved_rotary());
  CHECK(contains(open_error(dir.path(), "safetensors"), "has no weights"));
  dir.write("n.gguf", content);
  CHECK(contains(open_error(dir.path()), "has 2 .gguf files; expected one"));
  CHECK(open_checkpoint(dir.file("n.gguf"), "auto")->unused().empty());
  CHECK(open_checkpoint(dir.write("no_extension", content), "auto")->unused().empty());
}

TEST_CASE("dummy weights need a configuration alone, and are always the same") {
  const TempDir dir;
  dir.write("config.json", kConfig);
  const auto first = open_checkpoint(dir.path(), "dummy");
  const auto second = open_checkpoint(dir.path(), "dummy");
  CHECK(first->architecture() == "LlamaForCausalLM");
  CHECK(first->main_scheme() == Scheme::kBF16);
  CHECK(first->has("anything.weight"));
  CHECK_FALSE(first->has("rope_freqs.weight"));
  const std::vector<float> a = values_of(first->take("a.weight", {100, 300}));
  CHECK(a == values_of(second->take("a.weight", {100, 300})));
  CHECK(a != values_of(first->take("b.weight", {100, 300})));
  double sum = 0, squares = 0;
  for (float value : a) {
    sum += value;
    squares += double{value} * value;
  }
  CHECK(std::abs(sum / 30000) < 0.0005);
  CHECK(std::abs(std::sqrt(squares / 30000) - 0.02) < 0.0002);
  const WeightTensor noise = first->take("a.weight", {100, 300});
  CHECK(noise.data.empty());  // made where it is wanted
  CHECK(noise.matrix().noise_seed != 0);
  CHECK(a[0] == -0x1.7ap-5f);
  CHECK(a[29999] == -0x1.1ap-7f);
  CHECK(values_of(first->take("model.norm.weight", {3})) == std::vector<float>{1, 1, 1});
  CHECK(values_of(first->take("q_proj.bias", {2})) == std::vector<float>{0, 0});
  CHECK(first->unused().empty());
}

TEST_CASE("dummy weights have the configuration's dtype, and must fit in memory") {
  const TempDir dir;
  dir.write("config.json", R"({"architectures": ["X"], "torch_dtype": "float32"})");
  CHECK(open_checkpoint(dir.path(), "dummy")->main_scheme() == Scheme::kF32);
  dir.write("config.json", R"({"architectures": ["X"], "dtype": "float16"})");
  const auto checkpoint = open_checkpoint(dir.path(), "dummy");
  CHECK(checkpoint->take("a.weight", {2, 2}).scheme == Scheme::kF16);
  CHECK_THROWS_AS(checkpoint->take("b.weight", {int64_t{1} << 40, int64_t{1} << 40}), OutOfMemory);
  CHECK_THROWS_AS(checkpoint->take("c.weight", {int64_t{1} << 60, 4}), OutOfMemory);
  CHECK_THROWS_AS(checkpoint->take("d.weight", {-1, 4}), OutOfMemory);
  CHECK_THROWS_AS(open_checkpoint(dir.file("none"), "dummy"), LoadError);
  CHECK_THROWS_AS(open_checkpoint(dir.file("config.json"), "dummy"), LoadError);
}

}  // namespace
}  // namespace octavo
