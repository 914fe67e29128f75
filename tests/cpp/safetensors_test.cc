#include "weights/safetensors.h"

#include <doctest/doctest.h>

#include <sys/stat.h>

#include <string>
#include <vector>

#include "octavo/error.h"
#include "quant/decode.h"
#include "weight_files.h"

namespace octavo {
namespace {

using test::contains;
using test::message_of;
using test::raw;
using test::raw_floats;
using test::TempDir;

// Reads a file of this content; empty: it loads, otherwise the message of its LoadError, which must
// begin with the file's path.
std::string load_error(const std::string& content) {
  const TempDir dir;
  const std::string path = dir.write("model.safetensors", content);
  const std::string message = message_of<LoadError>([&] {
    const MappedFile file(path);
    read_safetensors(file);
  });
  if (!message.empty()) CHECK(message.starts_with(path));
  return message;
}

std::string header_error(std::string_view header, size_t data_bytes = 16) {
  return load_error(test::safetensors(header, std::string(data_bytes, '\0')));
}

TEST_CASE("tensors come with name, shape, dtype and data") {
  const TempDir dir;
  const std::string data = raw_floats({1, 2, 3, 4, 5, 6}) + raw(uint16_t{0x3f80}) +
                           raw(uint16_t{0xc000}) + raw(uint16_t{0x3c00});
  dir.write("model.safetensors", test::safetensors(R"({
      "__metadata__": {"format": "pt"},
      "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
      "b": {"dtype": "BF16", "shape": [2], "data_offsets": [24, 28]},
      "c": {"dtype": "F16", "shape": [], "data_offsets": [28, 30]}})",
                                                   data));
  TensorTable table = read_safetensors_directory(dir.path());
  CHECK(table.unused() == std::vector<std::string>{"a", "b", "c"});
  CHECK(table.main_scheme() == Scheme::kF32);

  const int64_t shape_a[] = {2, 3}, shape_b[] = {2};
  const WeightTensor a = table.take("a", shape_a);
  CHECK(a.shape == std::vector<int64_t>{2, 3});
  CHECK(a.matrix().rows == 2);
  CHECK(a.matrix().cols == 3);
  float row[3];
  decode_row(a.matrix(), 1, row);
  CHECK(row[0] == 4);
  CHECK(row[2] == 6);
  const WeightTensor b = table.take("b", shape_b);
  CHECK(b.scheme == Scheme::kBF16);
  decode_row(b.matrix(), 0, row);
  CHECK(row[0] == 1);
  CHECK(row[1] == -2);
  const WeightTensor c = table.take("c", {});
  decode_row(c.matrix(), 0, row);
  CHECK(row[0] == 1);
  CHECK(table.unused().empty());
}

TEST_CASE("holes, empty tensors and unknown dtypes load") {
  CHECK(header_error(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]},
                         "e": {"dtype": "F32", "shape": [0, 7], "data_offsets": [3, 3]},
                         "x": {"dtype": "F4_NEW", "shape": [6], "data_offsets": [0, 3]}})") == "");
  CHECK(header_error("{}") == "");
}

TEST_CASE("a lying header length is an error") {
  CHECK(contains(load_error(""), "has 0 bytes"));
  CHECK(contains(load_error("1234567"), "has 7 bytes"));
  CHECK(contains(load_error(raw(uint64_t{3}) + "{}"), "header's length is 3; expected at most 2"));
  CHECK(contains(load_error(raw(UINT64_MAX) + "{}"), "header's length is 18446744073709551615"));
  CHECK(contains(load_error(raw(uint64_t{1} << 63) + "{}"), "header's length"));
  CHECK(contains(load_error(raw(uint64_t{0})), "expected valid JSON"));
  CHECK(contains(load_error(raw(uint64_t{1}) + "{}"), "expected valid JSON"));
}

TEST_CASE("a malformed header is an error") {
  CHECK(contains(header_error("[]"), "not an object"));
  CHECK(contains(header_error("{\"a\": \xff}"), "expected valid JSON"));
  CHECK(contains(header_error(std::string(100, '[')), "at most 64 levels"));
  CHECK(contains(header_error(R"({"a": 1})"), "'a': is not an object"));
  CHECK(contains(header_error(R"({"a": {"shape": [1], "data_offsets": [0, 4]}})"),
                 "dtype is missing"));
  CHECK(contains(header_error(R"({"a": {"dtype": 7, "shape": [1], "data_offsets": [0, 4]}})"),
                 "dtype is not a string"));
  CHECK(contains(header_error(R"({"a": {"dtype": "F32", "data_offsets": [0, 4]}})"),
                 "shape is missing"));
  CHECK(contains(header_error(R"({"a": {"dtype": "F32", "shape": [1]}})"),
                 "data_offsets is missing"));
}

TEST_CASE("a name that occurs twice is an error") {
  const std::string entry = R"("a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})";
  CHECK(contains(header_error("{" + entry + ", " + entry + "}"), "'a' occurs twice"));
  CHECK(contains(
      header_error(
          R"({"a": {"dtype": "F32", "dtype": "F16", "shape": [1], "data_offsets": [0, 4]}})"),
      "'dtype' occurs twice"));
}

std::string entry_error(std::string_view shape, std::string_view offsets,
                        std::string_view dtype = "F32") {
  return header_error("{\"a\": {\"dtype\": \"" + std::string(dtype) + "\", \"shape\": " +
                      std::string(shape) + ", \"data_offsets\": " + std::string(offsets) + "}}");
}

TEST_CASE("shapes and offsets are checked, without overflow") {
  CHECK(entry_error("[4]", "[0, 16]") == "");
  CHECK(contains(entry_error("[5]", "[0, 20]"), "'a': data_offsets [0, 20] lie outside the file"));
  CHECK(contains(entry_error("[4]", "[4, 20]"), "lie outside the file"));
  CHECK(contains(entry_error("[4]", "[16, 0]"), "expected [begin, end]"));
  CHECK(contains(entry_error("[4]", "[0]"), "expected [begin, end]"));
  CHECK(contains(entry_error("[4]", "[0, 8, 16]"), "expected [begin, end]"));
  CHECK(contains(entry_error("[4]", "[-16, 0]"), "data_offsets is malformed"));
  CHECK(contains(entry_error("[4]", "[0, 1.6e1]"), "data_offsets is malformed"));
  CHECK(contains(entry_error("[4]", "[0, 18446744073709551616]"), "data_offsets is malformed"));
  CHECK(contains(entry_error("[4]", "[0, 9223372036854775807]"), "lie outside the file"));
  CHECK(contains(entry_error("[3]", "[0, 16]"), "give 16 bytes; expected 12"));
  CHECK(contains(entry_error("[4]", "[0, 16]", "F16"), "expected 8 for dtype F16 and shape [4]"));
  CHECK(contains(entry_error("[-4]", "[0, 16]"), "shape is malformed"));
  CHECK(contains(entry_error("[\"4\"]", "[0, 16]"), "shape is malformed"));
  CHECK(contains(entry_error("4", "[0, 16]"), "shape is malformed"));
  CHECK(contains(entry_error("[4294967296, 4294967296]", "[0, 16]"), "too many elements"));
  CHECK(contains(entry_error("[4294967296, 4294967296, 0]", "[0, 0]"), "too many elements"));
  CHECK(contains(entry_error("[4611686018427387908]", "[0, 16]"), "expected more for dtype F32"));
}

TEST_CASE("tensors that share bytes are an error that names both") {
  const std::string message =
      header_error(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                       "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}})");
  CHECK(contains(message, "'a' and 'b' overlap"));
}

TEST_CASE("names from a file are printable in messages") {
  const std::string message = header_error("{\"a\\u0007\xc3\xa9\": 1}");
  CHECK(contains(message, "'a\\x07\\xc3\\xa9'"));
}

TEST_CASE("every truncation of a file is an error") {
  const std::string whole = test::safetensors(
      R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})", std::string(16, 'x'));
  CHECK(load_error(whole) == "");
  for (size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    CHECK(load_error(whole.substr(0, size)) != "");
  }
}

TEST_CASE("a dtype that cannot be decoded is an error when it is taken") {
  const TempDir dir;
  dir.write("model.safetensors",
            test::safetensors(R"({"ids": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}})",
                              std::string(16, '\0')));
  TensorTable table = read_safetensors_directory(dir.path());
  const int64_t shape[] = {2};
  const std::string message = message_of<LoadError>([&] { table.take("ids", shape); });
  CHECK(contains(message, "ids: dtype I64 in model.safetensors; expected F32, F16, BF16"));
}

// Two shards with one float each.
void write_shards(const TempDir& dir) {
  const std::string entry = R"(": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})";
  dir.write("one.safetensors", test::safetensors("{\"a" + entry, raw_floats({1})));
  dir.write("two.safetensors", test::safetensors("{\"b" + entry, raw_floats({2})));
}

TEST_CASE("shards are read by their index") {
  const TempDir dir;
  write_shards(dir);
  dir.write("model.safetensors.index.json", R"({"metadata": {"total_size": 8},
      "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
  TensorTable table = read_safetensors_directory(dir.path());
  CHECK(table.unused() == std::vector<std::string>{"a", "b"});
  float value = 0;
  const int64_t shape[] = {1};
  decode_row(table.take("b", shape).matrix(), 0, &value);
  CHECK(value == 2);
  const std::string message = message_of<LoadError>([&] { table.take("c", shape); });
  CHECK(message == "model.safetensors.index.json: tensor 'c' is missing");
}

std::string index_error(std::string_view index) {
  const TempDir dir;
  write_shards(dir);
  const std::string path = dir.write("model.safetensors.index.json", index);
  const std::string message =
      message_of<LoadError>([&] { read_safetensors_directory(dir.path()); });
  if (!message.empty()) CHECK(message.starts_with(path));
  return message;
}

TEST_CASE("an index that lies is an error that names the tensor and the shard") {
  CHECK(index_error(R"({"weight_map": {"a": "one.safetensors"}})") == "");
  const std::string missing = index_error(R"({"weight_map": {"a": "three.safetensors"}})");
  CHECK(contains(missing, "tensor 'a' is in 'three.safetensors', which is missing"));
  const std::string lacking = index_error(R"({"weight_map": {"b": "one.safetensors"}})");
  CHECK(contains(lacking, "tensor 'b' is not in 'one.safetensors'"));
  const std::string swapped =
      index_error(R"({"weight_map": {"b": "one.safetensors", "a": "two.safetensors"}})");
  CHECK(contains(swapped, "tensor 'b' is not in 'one.safetensors'"));
  for (const char* shard : {"\"../one.safetensors\"", "\"/etc/passwd\"", "\"sub/one\"", "\"..\"",
                            "\"a\\\\b\"", "\"\"", "\"one\\u0000.safetensors\"", "7", "null"}) {
    CAPTURE(shard);
    const std::string index = "{\"weight_map\": {\"a\": " + std::string(shard) + "}}";
    CHECK(contains(index_error(index), "expected the name of a file in the same directory"));
  }
  CHECK(contains(index_error("{}"), "'weight_map' is missing"));
  CHECK(contains(index_error("[]"), "'weight_map' is missing"));
  CHECK(contains(index_error(R"({"weight_map": []})"), "'weight_map' is missing"));
  CHECK(contains(index_error("{"), "expected valid JSON"));
}

TEST_CASE("files that cannot be mapped are an error") {
  const TempDir dir;
  CHECK(contains(message_of<LoadError>([&] { MappedFile(dir.file("none")); }), "cannot be opened"));
  CHECK(
      contains(message_of<LoadError>([&] { MappedFile{dir.path()}; }), "expected a regular file"));
  REQUIRE(::mkfifo(dir.file("pipe").c_str(), 0600) == 0);
  CHECK(contains(message_of<LoadError>([&] { MappedFile(dir.file("pipe")); }),
                 "expected a regular file"));
  CHECK(MappedFile(dir.write("empty", "")).bytes().empty());
}

}  // namespace
}  // namespace octavo
