#include "weights/gguf_reader.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/checked_math.h"
#include "base/printable.h"
#include "weights/gguf_cursor.h"

namespace octavo {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint32_t kMaxDimensions = 4;
constexpr uint64_t kDefaultAlignment = 32;

// The types of metadata values, by their numbers in the file.
enum class ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

struct TensorType {
  uint32_t number;
  std::string_view name;
  std::optional<Scheme> scheme;
};
constexpr std::array<TensorType, 34> kTensorTypes = {{
    {0, "F32", Scheme::kF32},     {1, "F16", Scheme::kF16},      {2, "Q4_0", Scheme::kQ4_0},
    {3, "Q4_1", Scheme::kQ4_1},   {6, "Q5_0", Scheme::kQ5_0},    {7, "Q5_1", Scheme::kQ5_1},
    {8, "Q8_0", Scheme::kQ8_0},   {9, "Q8_1", std::nullopt},     {10, "Q2_K", std::nullopt},
    {11, "Q3_K", std::nullopt},   {12, "Q4_K", Scheme::kQ4_K},   {13, "Q5_K", Scheme::kQ5_K},
    {14, "Q6_K", Scheme::kQ6_K},  {15, "Q8_K", std::nullopt},    {16, "IQ2_XXS", std::nullopt},
    {17, "IQ2_XS", std::nullopt}, {18, "IQ3_XXS", std::nullopt}, {19, "IQ1_S", std::nullopt},
    {20, "IQ4_NL", std::nullopt}, {21, "IQ3_S", std::nullopt},   {22, "IQ2_S", std::nullopt},
    {23, "IQ4_XS", std::nullopt}, {24, "I8", std::nullopt},      {25, "I16", std::nullopt},
    {26, "I32", std::nullopt},    {27, "I64", std::nullopt},     {28, "F64", std::nullopt},
    {29, "IQ1_M", std::nullopt},  {30, "BF16", Scheme::kBF16},   {34, "TQ1_0", std::nullopt},
    {35, "TQ2_0", std::nullopt},  {39, "MXFP4", std::nullopt},   {40, "NVFP4", std::nullopt},
    {41, "Q1_0", std::nullopt},
}};

bool read_bool(GgufCursor& cursor) {
  const auto value = cursor.read<uint8_t>();
  if (value > 1) cursor.fail(str_cat("boolean ", int{value}), "0 or 1");
  return value == 1;
}

int64_t read_integer(GgufCursor& cursor, ValueType type) {
  switch (type) {
    case ValueType::kUint8: return cursor.read<uint8_t>();
    case ValueType::kInt8: return cursor.read<int8_t>();
    case ValueType::kUint16: return cursor.read<uint16_t>();
    case ValueType::kInt16: return cursor.read<int16_t>();
    case ValueType::kUint32: return cursor.read<uint32_t>();
    case ValueType::kInt32: return cursor.read<int32_t>();
    case ValueType::kInt64: return cursor.read<int64_t>();
    default: break;
  }
  const auto value = cursor.read<uint64_t>();
  if (value > INT64_MAX) cursor.fail(str_cat("integer ", value), "less than 2^63");
  return static_cast<int64_t>(value);
}

template <typename T, typename Read>
std::vector<T> read_items(uint64_t count, Read read) {
  std::vector<T> items;
  items.reserve(std::min<uint64_t>(count, 1 << 16));
  for (uint64_t i = 0; i < count; ++i) items.push_back(read());
  return items;
}

uint64_t min_value_bytes(ValueType type) {
  switch (type) {
    case ValueType::kUint16:
    case ValueType::kInt16: return 2;
    case ValueType::kUint32:
    case ValueType::kInt32:
    case ValueType::kFloat32: return 4;
    case ValueType::kString:  // its length
    case ValueType::kUint64:
    case ValueType::kInt64:
    case ValueType::kFloat64: return 8;
    default: return 1;
  }
}

[[noreturn]] void fail_type(const GgufCursor& cursor, ValueType type) {
  cursor.fail(str_cat("value type ", static_cast<uint32_t>(type)), "a type from 0 to 12");
}

GgufValue read_array(GgufCursor& cursor) {
  const auto type = static_cast<ValueType>(cursor.read<uint32_t>());
  if (type > ValueType::kFloat64) fail_type(cursor, type);
  if (type == ValueType::kArray) cursor.fail("an array of arrays", "an array of plain values");
  const uint64_t count = cursor.read_count(min_value_bytes(type));
  switch (type) {
    case ValueType::kBool: return read_items<bool>(count, [&] { return read_bool(cursor); });
    case ValueType::kString:
      return read_items<std::string>(count, [&] { return cursor.read_string(); });
    case ValueType::kFloat32:
      return read_items<double>(count, [&] { return double{cursor.read<float>()}; });
    case ValueType::kFloat64:
      return read_items<double>(count, [&] { return cursor.read<double>(); });
    default: return read_items<int64_t>(count, [&] { return read_integer(cursor, type); });
  }
}

GgufValue read_value(GgufCursor& cursor) {
  const auto type = static_cast<ValueType>(cursor.read<uint32_t>());
  switch (type) {
    case ValueType::kBool: return read_bool(cursor);
    case ValueType::kString: return cursor.read_string();
    case ValueType::kFloat32: return double{cursor.read<float>()};
    case ValueType::kFloat64: return cursor.read<double>();
    case ValueType::kArray: return read_array(cursor);
    default: break;
  }
  if (type > ValueType::kFloat64) fail_type(cursor, type);
  return read_integer(cursor, type);
}

struct Counts {
  uint64_t tensors;
  uint64_t values;
};

Counts read_preamble(GgufCursor& cursor) {
  if (cursor.remaining() < 4 || cursor.read<uint32_t>() != kMagic) {
    cursor.fail("not a GGUF file", "the letters GGUF at its beginning");
  }
  const auto version = cursor.read<uint32_t>();
  if ((version & 0xffffu) == 0) cursor.fail("the file is big-endian", "a little-endian one");
  if (version != 2 && version != 3) cursor.fail(str_cat("version ", version), "2 or 3");
  cursor.set_subject("number of tensors");
  const uint64_t tensors = cursor.read_count(24);  // empty name, no extents, type, offset
  cursor.set_subject("number of metadata values");
  return {tensors, cursor.read_count(13)};  // empty key, type, one byte
}

GgufMetadata read_metadata(GgufCursor& cursor, uint64_t count) {
  GgufMetadata metadata;
  for (uint64_t i = 0; i < count; ++i) {
    cursor.set_subject(str_cat("metadata key ", i));
    const std::string key = cursor.read_string();
    if (!std::ranges::all_of(key, [](char c) { return c > 0x20 && c < 0x7f; })) {
      cursor.fail(str_cat("'", printable(key), "' is no key"), "printable ASCII without spaces");
    }
    cursor.set_subject(str_cat("metadata '", printable(key), "'"));
    if (!metadata.emplace(key, read_value(cursor)).second) {
      cursor.fail("it occurs twice", "one value of each key");
    }
  }
  return metadata;
}

uint64_t read_alignment(const GgufCursor& cursor, const GgufMetadata& metadata) {
  const auto found = metadata.find("general.alignment");
  if (found == metadata.end()) return kDefaultAlignment;
  const auto* value = std::get_if<int64_t>(&found->second);
  if (value == nullptr || *value <= 0 || *value > (1 << 30) || (*value & (*value - 1)) != 0) {
    cursor.fail("general.alignment is malformed", "a power of two, at most 2^30");
  }
  return static_cast<uint64_t>(*value);
}

// Extents come innermost first.
std::vector<int64_t> read_shape(GgufCursor& cursor) {
  const auto rank = cursor.read<uint32_t>();
  if (rank > kMaxDimensions) {
    cursor.fail(str_cat(rank, " dimensions"), str_cat("at most ", kMaxDimensions));
  }
  std::vector<int64_t> shape(rank);
  for (uint32_t i = 0; i < rank; ++i) {
    const auto extent = cursor.read<uint64_t>();
    if (extent > INT64_MAX) cursor.fail(str_cat("extent ", extent), "less than 2^63");
    shape[rank - 1 - i] = static_cast<int64_t>(extent);
  }
  return shape;
}

// One entry of the list of tensors; `offset` is still that from the beginning of the data.
StoredTensor read_tensor(GgufCursor& cursor, uint64_t index) {
  cursor.set_subject(str_cat("tensor ", index));
  StoredTensor tensor;
  tensor.file = &cursor.file();
  tensor.name = cursor.read_string();
  cursor.set_subject(str_cat("tensor '", printable(tensor.name), "'"));
  tensor.shape = read_shape(cursor);
  const std::optional<uint64_t> elements = checked_elements(tensor.shape);
  if (!elements) cursor.fail("too many elements", "fewer than 2^63");
  const auto number = cursor.read<uint32_t>();
  const auto* type = std::ranges::find(kTensorTypes, number, &TensorType::number);
  const bool known = type != kTensorTypes.end();
  tensor.dtype = known ? std::string(type->name) : str_cat("number ", number);
  tensor.offset = cursor.read<uint64_t>();
  if (!known || !type->scheme) return tensor;  // an error only when it is taken
  tensor.scheme = type->scheme;
  const int64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
  const auto bytes = encoded_bytes(*type->scheme, *elements, static_cast<uint64_t>(columns));
  if (!bytes) {
    cursor.fail(str_cat("rows of ", columns, " elements of type ", type->name),
                str_cat("a multiple of ", scheme_info(*type->scheme).block_elements,
                        ", and fewer than 2^64 bytes"));
  }
  tensor.bytes = *bytes;
  return tensor;
}

// Moves the tensor's offset to the beginning of the file and checks that it ends in it.
void place_tensor(GgufCursor& cursor, uint64_t data_begin, uint64_t alignment,
                  StoredTensor& tensor) {
  cursor.set_subject(str_cat("tensor '", printable(tensor.name), "'"));
  if (tensor.offset % alignment != 0) {
    cursor.fail(str_cat("offset ", tensor.offset), str_cat("a multiple of ", alignment));
  }
  const std::optional<uint64_t> begin = checked_add(data_begin, tensor.offset);
  const std::optional<uint64_t> end = begin ? checked_add(*begin, tensor.bytes) : std::nullopt;
  if (!end || *end > cursor.file().size()) {
    cursor.fail(str_cat("lies outside the file: ", tensor.bytes, " bytes at offset ", tensor.offset,
                        " of the data, which begin at byte ", data_begin),
                str_cat("its end at most at byte ", cursor.file().size()));
  }
  tensor.offset = *begin;
}

}  // namespace

GgufHeader read_gguf(const MappedFile& file) {
  GgufCursor cursor(file);
  const Counts counts = read_preamble(cursor);
  GgufHeader header;
  header.metadata = read_metadata(cursor, counts.values);
  const uint64_t alignment = read_alignment(cursor, header.metadata);
  std::set<std::string_view> names;
  header.tensors.reserve(std::min<uint64_t>(counts.tensors, 1 << 16));
  for (uint64_t i = 0; i < counts.tensors; ++i) header.tensors.push_back(read_tensor(cursor, i));
  const std::optional<uint64_t> data_begin = checked_align(cursor.position(), alignment);
  OCTAVO_CHECK(data_begin.has_value());  // both are far below 2^63
  for (StoredTensor& tensor : header.tensors) {
    place_tensor(cursor, *data_begin, alignment, tensor);
    if (!names.insert(tensor.name).second) cursor.fail("it occurs twice", "one of each name");
  }
  check_overlaps(header.tensors);
  return header;
}

std::map<std::string, GgufValue> read_gguf_metadata(const std::string& path) {
  const MappedFile file(path);
  GgufCursor cursor(file);
  return read_metadata(cursor, read_preamble(cursor).values);
}

}  // namespace octavo
