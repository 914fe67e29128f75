#include "octavo/gguf.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "octavo/error.h"
#include "weight_files.h"
#include "weights/gguf_names.h"
#include "weights/gguf_reader.h"

namespace octavo {
namespace {

using test::contains;
using test::GgufWriter;
using test::message_of;
using test::raw;
using test::TempDir;

constexpr uint32_t kF32 = 0, kQ8_0 = 8, kQ2_K = 10;

// Empty: the file loads; otherwise the message of its LoadError, which must begin with the path.
std::string load_error(const std::string& content) {
  const TempDir dir;
  const std::string path = dir.write("model.gguf", content);
  const std::string message = message_of<LoadError>([&] {
    const MappedFile file(path);
    read_gguf(file);
  });
  if (!message.empty()) CHECK(message.starts_with(path));
  return message;
}

template <typename T>
T get(const std::map<std::string, GgufValue>& metadata, const std::string& key) {
  return std::get<T>(metadata.at(key));
}

std::string array(uint32_t type, uint64_t count, std::string_view items) {
  return raw(type) + raw(count) + std::string(items);
}

TEST_CASE("every scalar type is read") {
  const TempDir dir;
  GgufWriter writer;
  writer.value("u8", 0, "\xff").value("i8", 1, "\xff");
  writer.value("u16", 2, raw(uint16_t{65535})).value("i16", 3, raw(int16_t{-2}));
  writer.value("u32", 4, raw(uint32_t{4000000000u})).value("i32", 5, raw(int32_t{-3}));
  writer.value("f32", 6, raw(0.5f)).value("true", 7, "\x01");
  writer.value("false", 7, std::string(1, '\0')).string("text", "h\xc3\xa9llo");
  writer.value("u64", 10, raw(uint64_t{INT64_MAX})).value("i64", 11, raw(INT64_MIN));
  writer.value("f64", 12, raw(-0.25));
  for (uint32_t version : {2u, 3u}) {
    const auto metadata = read_gguf_metadata(dir.write("m.gguf", writer.finish(version)));
    CHECK(metadata.size() == 13);
    CHECK(get<int64_t>(metadata, "u8") == 255);
    CHECK(get<int64_t>(metadata, "i8") == -1);
    CHECK(get<int64_t>(metadata, "u16") == 65535);
    CHECK(get<int64_t>(metadata, "i16") == -2);
    CHECK(get<int64_t>(metadata, "u32") == 4000000000);
    CHECK(get<int64_t>(metadata, "i32") == -3);
    CHECK(get<double>(metadata, "f32") == 0.5);
    CHECK(get<bool>(metadata, "true"));
    CHECK_FALSE(get<bool>(metadata, "false"));
    CHECK(get<std::string>(metadata, "text") == "h\xc3\xa9llo");
    CHECK(get<int64_t>(metadata, "u64") == INT64_MAX);
    CHECK(get<int64_t>(metadata, "i64") == INT64_MIN);
    CHECK(get<double>(metadata, "f64") == -0.25);
  }
}

TEST_CASE("arrays are read") {
  const TempDir dir;
  GgufWriter writer;
  writer.value("words", 9, array(8, 2, GgufWriter::text("ab") + GgufWriter::text("")));
  writer.value("numbers", 9, array(5, 2, raw(int32_t{-1}) + raw(int32_t{7})));
  writer.value("bytes", 9, array(0, 2, "\x01\xfe"));
  writer.value("scores", 9, array(6, 1, raw(1.5f))).value("exact", 9, array(12, 1, raw(0.1)));
  writer.value("flags", 9, array(7, 2, std::string("\x01\x00", 2)));
  writer.value("none", 9, array(8, 0, ""));
  const auto metadata = read_gguf_metadata(dir.write("m.gguf", writer.finish()));
  CHECK(get<std::vector<std::string>>(metadata, "words") == std::vector<std::string>{"ab", ""});
  CHECK(get<std::vector<int64_t>>(metadata, "numbers") == std::vector<int64_t>{-1, 7});
  CHECK(get<std::vector<int64_t>>(metadata, "bytes") == std::vector<int64_t>{1, 254});
  CHECK(get<std::vector<double>>(metadata, "scores") == std::vector<double>{1.5});
  CHECK(get<std::vector<double>>(metadata, "exact") == std::vector<double>{0.1});
  CHECK(get<std::vector<bool>>(metadata, "flags") == std::vector<bool>{true, false});
  CHECK(get<std::vector<std::string>>(metadata, "none").empty());
}

TEST_CASE("tensors are placed, with their extents outermost first") {
  const TempDir dir;
  const std::string path =
      dir.write("m.gguf", GgufWriter()
                              .string("general.name", "x")
                              .tensor("a", {3, 2}, kF32, std::string(24, 'a'))
                              .tensor("b", {64, 1}, kQ8_0, std::string(68, 'b'))
                              .tensor("c", {256}, kQ2_K, std::string(84, 'c'))
                              .finish());
  const MappedFile file(path);
  const GgufHeader header = read_gguf(file);
  REQUIRE(header.tensors.size() == 3);
  const StoredTensor& a = header.tensors[0];
  CHECK(a.shape == std::vector<int64_t>{2, 3});
  CHECK(a.bytes == 24);
  CHECK(file.bytes()[a.offset] == std::byte{'a'});
  const StoredTensor& b = header.tensors[1];
  CHECK(b.scheme == Scheme::kQ8_0);
  CHECK(b.shape == std::vector<int64_t>{1, 64});
  CHECK(b.bytes == 68);
  CHECK(file.bytes()[b.offset + 67] == std::byte{'b'});
  CHECK_FALSE(header.tensors[2].scheme.has_value());
  CHECK(header.tensors[2].dtype == "Q2_K");
}

TEST_CASE("the alignment is the file's own") {
  GgufWriter writer;
  writer.integer("general.alignment", 64);
  writer.entry("a", {1}, kF32, 0).entry("b", {1}, kF32, 32);
  CHECK(contains(load_error(writer.finish() + std::string(256, '\0')),
                 "tensor 'b': offset 32; expected a multiple of 64"));
  for (uint32_t alignment : {0u, 24u, 1u << 31}) {
    CAPTURE(alignment);
    CHECK(contains(load_error(GgufWriter().integer("general.alignment", alignment).finish()),
                   "general.alignment is malformed"));
  }
  CHECK(contains(load_error(GgufWriter().string("general.alignment", "32").finish()),
                 "general.alignment is malformed"));
}

TEST_CASE("what is no GGUF of a known version is an error") {
  CHECK(contains(load_error(""), "not a GGUF file"));
  CHECK(contains(load_error("GGUX" + std::string(40, '\0')), "not a GGUF file"));
  CHECK(contains(load_error("GGUF"), "the file ends at byte 4"));
  CHECK(contains(load_error(GgufWriter().finish(1)), "version 1; expected 2 or 3"));
  CHECK(contains(load_error(GgufWriter().finish(4)), "version 4"));
  CHECK(contains(load_error(GgufWriter().finish(0x03000000)), "big-endian"));
  CHECK(load_error(GgufWriter().finish()) == "");
}

TEST_CASE("counts and lengths are bounded by the file") {
  const std::string preamble = "GGUF" + raw(uint32_t{3});
  const std::string room(64, '\0');
  CHECK(contains(load_error(preamble + raw(UINT64_MAX) + raw(uint64_t{0}) + room),
                 "number of tensors: count 18446744073709551615"));
  CHECK(contains(load_error(preamble + raw(uint64_t{0}) + raw(uint64_t{1} << 60) + room),
                 "number of metadata values: count"));
  GgufWriter text;
  text.value("k", 8, raw(uint64_t{1} << 40) + "abc");
  CHECK(contains(load_error(text.finish()), "metadata 'k': the file ends at byte"));
  GgufWriter wrapping;  // position + length overflows
  wrapping.value("k", 8, raw(UINT64_MAX) + "abc");
  CHECK(contains(load_error(wrapping.finish()), "metadata 'k': the file ends at byte"));
  for (uint32_t type : {0u, 6u, 7u, 8u, 10u, 12u}) {
    CAPTURE(type);
    for (uint64_t count : {uint64_t{1000}, uint64_t{1} << 61, UINT64_MAX}) {
      GgufWriter writer;
      writer.value("k", 9, array(type, count, std::string(24, '\0')));
      CHECK(contains(load_error(writer.finish()), "metadata 'k': count"));
    }
  }
}

TEST_CASE("metadata that is malformed is an error") {
  const auto error_of = [](uint32_t type, std::string_view bytes) {
    return load_error(GgufWriter().value("k", type, bytes).finish() + std::string(64, '\0'));
  };
  CHECK(contains(error_of(13, ""), "metadata 'k': value type 13"));
  CHECK(contains(error_of(9, array(77, 1, "")), "value type 77"));
  CHECK(contains(error_of(9, array(9, 1, array(0, 0, ""))), "array of arrays"));
  CHECK(contains(error_of(7, "\x02"), "boolean 2"));
  CHECK(contains(error_of(10, raw(uint64_t{1} << 63)), "integer 9223372036854775808"));
  CHECK(contains(load_error(GgufWriter().integer("k", 1).integer("k", 2).finish()),
                 "metadata 'k': it occurs twice"));
  CHECK(
      contains(load_error(GgufWriter().integer("k\n\xff", 1).finish()), "'k\\x0a\\xff' is no key"));
}

std::string tensor_error(const std::vector<uint64_t>& extents, uint32_t type, uint64_t offset) {
  return load_error(GgufWriter().entry("w", extents, type, offset).finish() +
                    std::string(64, '\0'));
}

TEST_CASE("tensors outside the file are an error that names them") {
  CHECK(tensor_error({16}, kF32, 0) == "");
  CHECK(tensor_error({8}, kF32, 32) == "");
  CHECK(contains(tensor_error({17}, kF32, 0), "tensor 'w': lies outside the file: 68 bytes"));
  CHECK(contains(tensor_error({9}, kF32, 32), "lies outside the file"));
  CHECK(contains(tensor_error({1}, kF32, 64), "lies outside the file"));
  CHECK(contains(tensor_error({1}, kF32, UINT64_MAX - 31), "lies outside the file"));
  CHECK(contains(tensor_error({uint64_t{1} << 61}, kF32, 32), "lies outside the file"));
  CHECK(contains(tensor_error({1}, kF32, 7), "offset 7; expected a multiple of 32"));
  CHECK(contains(tensor_error({256}, kQ2_K, 96), "lies outside the file"));
}

TEST_CASE("extents are checked, without overflow") {
  CHECK(tensor_error({}, kF32, 0) == "");
  CHECK(contains(tensor_error({1, 1, 1, 1, 1}, kF32, 0), "5 dimensions; expected at most 4"));
  CHECK(contains(tensor_error({uint64_t{1} << 63}, kF32, 0), "extent 9223372036854775808"));
  CHECK(
      contains(tensor_error({uint64_t{1} << 32, uint64_t{1} << 32}, kF32, 0), "too many elements"));
  CHECK(contains(tensor_error({0, uint64_t{1} << 32, uint64_t{1} << 32}, kF32, 0),
                 "too many elements"));
  CHECK(contains(tensor_error({uint64_t{1} << 62}, kF32, 0), "fewer than 2^64 bytes"));
  CHECK(contains(tensor_error({33}, kQ8_0, 0), "rows of 33 elements of type Q8_0"));
  CHECK(contains(tensor_error({16, 2}, kQ8_0, 0), "a multiple of 32"));
}

TEST_CASE("tensors of one name, or on the same bytes, are an error") {
  GgufWriter twice;
  twice.entry("w", {1}, kF32, 0).entry("w", {1}, kF32, 32);
  CHECK(contains(load_error(twice.finish() + std::string(64, '\0')), "'w': it occurs twice"));
  GgufWriter shared;
  shared.entry("v", {12}, kF32, 0).entry("w", {1}, kF32, 32);
  CHECK(contains(load_error(shared.finish() + std::string(64, '\0')), "'v' and 'w' overlap"));
}

TEST_CASE("every truncation of a file is an error") {
  const std::string whole = GgufWriter()
                                .string("general.architecture", "llama")
                                .value("list", 9, array(8, 1, GgufWriter::text("token")))
                                .tensor("w", {8}, kF32, std::string(32, 'w'))
                                .finish();
  CHECK(load_error(whole) == "");
  for (size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    CHECK(load_error(whole.substr(0, size)) != "");
  }
}

TEST_CASE("metadata is read without the tensors") {
  const TempDir dir;
  const std::string path =
      dir.write("m.gguf", GgufWriter().integer("k", 5).entry("w", {1000}, kF32, 0).finish());
  CHECK(get<int64_t>(read_gguf_metadata(path), "k") == 5);
  CHECK_THROWS_AS(read_gguf_metadata(dir.file("none.gguf")), LoadError);
  CHECK_THROWS_AS(read_gguf_metadata(dir.path()), LoadError);
}

TEST_CASE("names map to those of Hugging Face") {
  CHECK(hugging_face_name("llama", "token_embd.weight") == "model.embed_tokens.weight");
  CHECK(hugging_face_name("llama", "output.weight") == "lm_head.weight");
  CHECK(hugging_face_name("llama", "rope_freqs.weight") == "rope_freqs.weight");
  CHECK(hugging_face_name("llama", "blk.0.attn_q.weight") ==
        "model.layers.0.self_attn.q_proj.weight");
  CHECK(hugging_face_name("llama", "blk.31.attn_v.bias") ==
        "model.layers.31.self_attn.v_proj.bias");
  CHECK(hugging_face_name("llama", "blk.7.ffn_norm.weight") ==
        "model.layers.7.post_attention_layernorm.weight");
  CHECK(hugging_face_name("gpt2", "position_embd.weight") == "transformer.wpe.weight");
  CHECK(hugging_face_name("gpt2", "output_norm.bias") == "transformer.ln_f.bias");
  CHECK(hugging_face_name("gpt2", "blk.11.attn_qkv.bias") == "transformer.h.11.attn.c_attn.bias");
  CHECK(hugging_face_name("gpt2", "blk.0.ffn_down.weight") == "transformer.h.0.mlp.c_proj.weight");
}

TEST_CASE("unknown names stay as they are") {
  for (const char* name : {"", ".", "weight", "blk", "blk.", "blk..weight", "blk.x.attn_q.weight",
                           "blk.1attn_q.weight", "blk.1.weight", "blk.1.attn_q.scale",
                           "attn_q.weight", "blk.0.token_embd.weight", "blk.0.attn_qkv.weight"}) {
    CAPTURE(name);
    CHECK(hugging_face_name("llama", name) == name);
  }
  CHECK(hugging_face_name("mamba", "token_embd.weight") == "token_embd.weight");
}

}  // namespace
}  // namespace octavo
