#include "weights/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <filesystem>
#include <map>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/json.h"
#include "base/printable.h"

namespace octavo {
namespace {

static_assert(std::endian::native == std::endian::little, "weight files are little-endian");

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's own library

struct DtypeInfo {
  std::string_view name;
  uint64_t bytes;  // of one element
  std::optional<Scheme> scheme;
};
constexpr std::array<DtypeInfo, 15> kDtypes = {{
    {"F32", 4, Scheme::kF32},
    {"F16", 2, Scheme::kF16},
    {"BF16", 2, Scheme::kBF16},
    {"F64", 8, std::nullopt},
    {"I64", 8, std::nullopt},
    {"U64", 8, std::nullopt},
    {"I32", 4, std::nullopt},
    {"U32", 4, std::nullopt},
    {"I16", 2, std::nullopt},
    {"U16", 2, std::nullopt},
    {"I8", 1, std::nullopt},
    {"U8", 1, std::nullopt},
    {"BOOL", 1, std::nullopt},
    {"F8_E4M3", 1, std::nullopt},
    {"F8_E5M2", 1, std::nullopt},
}};

// One entry of the header on its way to a StoredTensor; knows how to complain.
class EntryReader {
 public:
  EntryReader(const MappedFile& file, uint64_t data_begin, const std::string& name,
              const Json& entry)
      : file_(file), data_begin_(data_begin), entry_(entry) {
    tensor_.name = name;
    tensor_.file = &file;
  }

  StoredTensor read() {
    if (!entry_.is_object()) fail("is not an object", "dtype, shape and data_offsets");
    read_dtype();
    read_shape();
    read_offsets();
    check_bytes();
    return std::move(tensor_);
  }

 private:
  [[noreturn]] void fail(const std::string& problem, const std::string& expected) const {
    throw LoadError(str_cat(file_.path(), ": tensor '", printable(tensor_.name), "': ", problem,
                            "; expected ", expected));
  }

  const Json& field(const char* key) const {
    const auto position = entry_.find(key);
    if (position == entry_.end())
      fail(str_cat(key, " is missing"), "dtype, shape and data_offsets");
    return *position;
  }

  // A list of numbers that fit int64_t.
  std::vector<int64_t> numbers(const char* key) const {
    const Json& list = field(key);
    std::vector<int64_t> result;
    bool valid = list.is_array();
    for (size_t i = 0; valid && i < list.size(); ++i) {
      valid = list[i].is_number_unsigned() && list[i].get<uint64_t>() <= INT64_MAX;
      if (valid) result.push_back(static_cast<int64_t>(list[i].get<uint64_t>()));
    }
    if (!valid) fail(str_cat(key, " is malformed"), "a list of integers from 0 to 2^63 - 1");
    return result;
  }

  void read_dtype() {
    const Json& dtype = field("dtype");
    if (!dtype.is_string()) fail("dtype is not a string", "such as \"F32\"");
    tensor_.dtype = dtype.get<std::string>();
    const auto* info = std::ranges::find(kDtypes, tensor_.dtype, &DtypeInfo::name);
    if (info == kDtypes.end()) return;  // a dtype of the future: an error only when it is taken
    tensor_.scheme = info->scheme;
    element_bytes_ = info->bytes;
  }

  void read_shape() {
    tensor_.shape = numbers("shape");
    const std::optional<uint64_t> elements = checked_elements(tensor_.shape);
    if (!elements) fail("shape has too many elements", "fewer than 2^63");
    elements_ = *elements;
  }

  void read_offsets() {
    const std::vector<int64_t> offsets = numbers("data_offsets");
    const uint64_t data_bytes = file_.size() - data_begin_;
    if (offsets.size() != 2 || offsets[0] > offsets[1]) {
      fail(str_cat("data_offsets is ", shape_text(offsets)), "[begin, end]");
    }
    if (static_cast<uint64_t>(offsets[1]) > data_bytes) {
      fail(str_cat("data_offsets ", shape_text(offsets), " lie outside the file"),
           str_cat("at most ", data_bytes, " bytes of data"));
    }
    tensor_.offset = data_begin_ + static_cast<uint64_t>(offsets[0]);
    tensor_.bytes = static_cast<uint64_t>(offsets[1] - offsets[0]);
  }

  void check_bytes() const {
    if (!element_bytes_) return;
    const std::optional<uint64_t> bytes = checked_multiply(elements_, *element_bytes_);
    if (bytes && *bytes == tensor_.bytes) return;
    fail(str_cat("data_offsets give ", tensor_.bytes, " bytes"),
         str_cat(bytes ? std::to_string(*bytes) : "more", " for dtype ", tensor_.dtype,
                 " and shape ", shape_text(tensor_.shape)));
  }

  const MappedFile& file_;
  uint64_t data_begin_;
  const Json& entry_;
  StoredTensor tensor_;
  std::optional<uint64_t> element_bytes_;
  uint64_t elements_ = 0;
};

// The header's text. It is read, not mapped: parsing it is safe whatever happens to the file.
std::string read_header(const MappedFile& file) {
  constexpr uint64_t kLengthBytes = 8;
  if (file.size() < kLengthBytes) {
    throw LoadError(str_cat(file.path(), ": has ", file.size(),
                            " bytes; expected a safetensors file, which begins with 8 bytes of "
                            "header length"));
  }
  uint64_t length = 0;
  std::memcpy(&length, file.read(0, kLengthBytes).data(), kLengthBytes);
  const uint64_t limit = std::min(kMaxHeaderBytes, file.size() - kLengthBytes);
  if (length > limit) {
    throw LoadError(str_cat(file.path(), ": the header's length is ", length, "; expected at most ",
                            limit, " in a safetensors file of ", file.size(), " bytes"));
  }
  return file.read(kLengthBytes, length);
}

// The shards that an index names, each with the tensors that it must hold.
std::map<std::string, std::vector<std::string>> read_index(const std::string& path) {
  const Json index = parse_json(read_text_file(path), path);
  const auto weight_map = index.is_object() ? index.find("weight_map") : index.end();
  if (weight_map == index.end() || !weight_map->is_object()) {
    throw LoadError(str_cat(path,
                            ": 'weight_map' is missing; expected an object of tensor and "
                            "file names"));
  }
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [name, shard] : weight_map->items()) {
    const std::string file_name = shard.is_string() ? shard.get<std::string>() : "";
    if (file_name.empty() || file_name == "." || file_name == ".." ||
        file_name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
      throw LoadError(str_cat(path, ": tensor '", printable(name), "' is in '",
                              printable(file_name),
                              "'; expected the name of a file in the same directory"));
    }
    shards[file_name].push_back(name);
  }
  return shards;
}

// Checks that a shard is there before it is opened, so that the message names what wants it.
void check_shard_exists(const std::string& index, const std::string& shard_path,
                        const std::string& shard, const std::string& tensor) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(shard_path, ignored)) return;
  throw LoadError(str_cat(index, ": tensor '", printable(tensor), "' is in '", printable(shard),
                          "', which is missing; expected that file beside the index"));
}

TensorTable read_shards(const std::string& directory, const std::string& index) {
  TensorTable table("model.safetensors.index.json");
  for (const auto& [shard, names] : read_index(index)) {
    const std::string path = directory + "/" + shard;
    check_shard_exists(index, path, shard, names.front());
    for (StoredTensor& tensor : read_safetensors(table.add_file(path)))
      table.add(std::move(tensor));
    for (const std::string& name : names) {
      const auto position = table.tensors().find(name);
      if (position != table.tensors().end() && position->second.file->path() == path) continue;
      throw LoadError(str_cat(index, ": tensor '", printable(name), "' is not in '",
                              printable(shard), "'; expected it there"));
    }
  }
  return table;
}

}  // namespace

std::vector<StoredTensor> read_safetensors(const MappedFile& file) {
  const std::string text = read_header(file);
  const Json header = parse_json(text, file.path(), DuplicateKeys::kRefuse);
  if (!header.is_object()) {
    throw LoadError(
        str_cat(file.path(), ": the header is not an object; expected tensors by name"));
  }
  const uint64_t data_begin = 8 + text.size();
  std::vector<StoredTensor> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    tensors.push_back(EntryReader(file, data_begin, name, entry).read());
  }
  check_overlaps(tensors);
  return tensors;
}

TensorTable read_safetensors_directory(const std::string& directory) {
  const std::string single = directory + "/model.safetensors";
  std::error_code ignored;
  TensorTable table("model.safetensors");
  if (std::filesystem::exists(single, ignored)) {
    for (StoredTensor& tensor : read_safetensors(table.add_file(single))) {
      table.add(std::move(tensor));
    }
  } else {
    table = read_shards(directory, single + ".index.json");
  }
  table.add_optional_prefix("transformer.");
  table.add_optional_prefix("model.");
  return table;
}

}  // namespace octavo
