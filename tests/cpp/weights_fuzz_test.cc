// Damaged model files must load or throw LoadError, and nothing else; what loads must be safe to
// decode. Run under the address and undefined-behaviour sanitizers as well.
#include <doctest/doctest.h>

#include <algorithm>
#include <exception>
#include <iterator>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "octavo/error.h"
#include "octavo/gguf.h"
#include "quant/decode.h"
#include "weight_files.h"
#include "weights/file_checkpoint.h"

namespace octavo {
namespace {

using test::GgufWriter;
using test::raw;
using test::TempDir;

constexpr uint64_t kCasesPerFile = 3000;

// Bytes that mean something to the parsers, to be spliced in.
std::string interesting(std::mt19937_64& random) {
  const std::string pieces[] = {raw(UINT64_MAX),
                                raw(uint64_t{1} << 63),
                                raw(uint64_t{1} << 32),
                                raw(uint64_t{0}),
                                raw(UINT32_MAX),
                                raw(uint32_t{9}),
                                raw(uint32_t{8}),
                                std::string("\0", 1),
                                "\xff",
                                "-1",
                                "18446744073709551615",
                                "9223372036854775807",
                                "1e400",
                                "null",
                                "[",
                                "{\"",
                                "\"a\"",
                                "]}",
                                "..",
                                "\\u0000"};
  return pieces[random() % std::size(pieces)];
}

std::string mutate(std::string content, std::mt19937_64& random) {
  const uint64_t changes = 1 + random() % 4;
  for (uint64_t i = 0; i < changes && !content.empty(); ++i) {
    const size_t place = random() % content.size();
    switch (random() % 7) {
      case 0: content[place] = static_cast<char>(random()); break;
      case 1: content[place] = static_cast<char>(content[place] ^ (1 << (random() % 8))); break;
      case 2: content.resize(place); break;
      case 3: content.erase(place, 1 + random() % 16); break;
      case 4: {
        const std::string piece = interesting(random);
        content.replace(place, piece.size(), piece);
        break;
      }
      case 5: content.insert(place, interesting(random)); break;
      default:  // a copy of another part
        content.insert(place, content.substr(random() % content.size(), random() % 64));
        break;
    }
  }
  return content;
}

// Most damage should hit the header, which comes first.
std::string mutate_front(const std::string& content, size_t front, std::mt19937_64& random) {
  if (random() % 8 == 0) return mutate(content, random);
  return mutate(content.substr(0, front), random) + content.substr(front);
}

float decode_everything(const WeightTensor& tensor) {
  const QuantizedMatrix matrix = tensor.matrix();
  std::vector<float> row(static_cast<size_t>(matrix.cols));
  float last = 0;
  for (int64_t i = 0; i < matrix.rows && matrix.cols > 0; ++i) {
    decode_row(matrix, i, row.data());
    last = row.back();
  }
  return last;
}

// Opens the model and takes and decodes what it has. True: it opened.
bool exercise(const std::string& path) {
  try {
    const auto checkpoint = open_checkpoint(path, "auto");
    auto* file = dynamic_cast<FileCheckpoint*>(checkpoint.get());
    REQUIRE(file != nullptr);
    (void)checkpoint->main_scheme();
    (void)checkpoint->config().dump();
    for (const auto& [name, tensor] : file->table().tensors()) {
      const std::vector<int64_t> wrong = {12345, 1};
      CHECK_THROWS_AS(checkpoint->take(name, std::span<const int64_t>(wrong)), LoadError);
      try {
        decode_everything(checkpoint->take(name, std::span<const int64_t>(tensor.shape)));
      } catch (const LoadError&) {  // a dtype that is not decoded
        CHECK_FALSE(tensor.scheme.has_value());
      }
    }
    return true;
  } catch (const LoadError& error) {
    const std::string_view message = error.what();
    CHECK(std::ranges::all_of(message, [](char c) { return c >= 0x20 && c < 0x7f; }));
    return false;
  }
}

// Damages the file `name` of a directory again and again; the others stay. Any other exception
// than LoadError fails the case with its seed.
void fuzz(const TempDir& dir, const std::string& name, const std::string& opened, size_t front) {
  const std::string content = read_text_file(dir.file(name));
  REQUIRE(exercise(opened));
  int opened_anyway = 0;
  for (uint64_t seed = 1; seed <= kCasesPerFile; ++seed) {
    CAPTURE(name);
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    dir.write(name, mutate_front(content, front, random));
    try {
      opened_anyway += exercise(opened);
    } catch (const std::exception& error) {
      FAIL_CHECK("threw another exception: ", error.what());
    }
  }
  dir.write(name, content);
  // Otherwise the damage is too coarse to get past the first checks.
  CHECK(opened_anyway > 0);
  CHECK(opened_anyway < static_cast<int>(kCasesPerFile));
}

constexpr const char* kConfig = R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 64,
    "rope_scaling": {"type": "linear", "factor": 2.0}, "eos_token_id": [1, 2]})";

std::string small_safetensors(const std::string& prefix) {
  const std::string header =
      "{\"__metadata__\": {\"format\": \"pt\"}, \"" + prefix +
      R"(a": {"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]}, ")" + prefix +
      R"(b": {"dtype": "BF16", "shape": [8], "data_offsets": [48, 64]}, ")" + prefix +
      R"(c": {"dtype": "F16", "shape": [2, 2, 2], "data_offsets": [64, 80]}, ")" + prefix +
      R"(d": {"dtype": "I64", "shape": [1], "data_offsets": [80, 88]}})";
  return test::safetensors(header, std::string(88, '\x3f'));
}

std::string small_gguf() {
  GgufWriter writer;
  writer.string("general.architecture", "llama").integer("llama.block_count", 1);
  writer.integer("llama.context_length", 64).integer("llama.embedding_length", 64);
  writer.integer("llama.feed_forward_length", 256).integer("llama.attention.head_count", 2);
  writer.real("llama.attention.layer_norm_rms_epsilon", 1e-5f).integer("general.alignment", 32);
  writer.string("llama.rope.scaling.type", "yarn").real("llama.rope.scaling.factor", 2.0f);
  writer.value("tokenizer.ggml.tokens", 9,
               raw(uint32_t{8}) + raw(uint64_t{2}) + GgufWriter::text("a") + GgufWriter::text("b"));
  writer.value("tokenizer.ggml.scores", 9, raw(uint32_t{6}) + raw(uint64_t{1}) + raw(1.0f));
  writer.tensor("token_embd.weight", {64, 2}, 8, std::string(2 * 68, 'e'));
  writer.tensor("blk.0.ffn_down.weight", {256, 2}, 12, std::string(2 * 144, 'd'));
  writer.tensor("blk.0.ffn_up.weight", {256, 1}, 14, std::string(210, 'u'));
  writer.tensor("blk.0.attn_q.weight", {64, 1}, 3, std::string(40, 'q'));
  writer.tensor("output_norm.weight", {4}, 0, std::string(16, 'n'));
  return writer.finish();
}

TEST_CASE("damaged safetensors load or throw LoadError") {
  const TempDir dir;
  const std::string content = small_safetensors("");
  dir.write("config.json", kConfig);
  dir.write("model.safetensors", content);
  fuzz(dir, "model.safetensors", dir.path(), content.size() - 88);
}

TEST_CASE("damaged configurations load or throw LoadError") {
  const TempDir dir;
  dir.write("config.json", kConfig);
  dir.write("model.safetensors", small_safetensors(""));
  fuzz(dir, "config.json", dir.path(), std::string_view(kConfig).size());
}

TEST_CASE("damaged indexes load or throw LoadError") {
  const TempDir dir;
  dir.write("config.json", kConfig);
  dir.write("one.safetensors", small_safetensors("x."));
  dir.write("two.safetensors", small_safetensors("y."));
  const std::string index = R"({"metadata": {"total_size": 176}, "weight_map": {
      "x.a": "one.safetensors", "x.b": "one.safetensors", "x.c": "one.safetensors",
      "y.a": "two.safetensors", "y.b": "two.safetensors"}})";
  dir.write("model.safetensors.index.json", index);
  fuzz(dir, "model.safetensors.index.json", dir.path(), index.size());
}

TEST_CASE("damaged GGUF files load or throw LoadError") {
  const TempDir dir;
  const std::string content = small_gguf();
  dir.write("m.gguf", content);
  fuzz(dir, "m.gguf", dir.file("m.gguf"), content.size() - 700);
}

TEST_CASE("metadata of damaged GGUF files is read or throws LoadError") {
  const TempDir dir;
  const std::string content = small_gguf();
  for (uint64_t seed = 1; seed <= kCasesPerFile; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const std::string path = dir.write("m.gguf", mutate(content, random));
    try {
      read_gguf_metadata(path);
    } catch (const LoadError&) {
    } catch (const std::exception& error) {
      FAIL_CHECK("threw another exception: ", error.what());
    }
  }
}

}  // namespace
}  // namespace octavo
