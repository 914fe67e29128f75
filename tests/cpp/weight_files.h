// Builds small model files for the tests of the readers, and removes them. Each object belongs to
// one test case.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "temp_dir.h"

namespace octavo::test {

template <typename T>
std::string raw(const T& value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

inline std::string raw_floats(const std::vector<float>& values) {
  std::string bytes;
  for (float value : values) bytes += raw(value);
  return bytes;
}

// A safetensors file of this header and data.
inline std::string safetensors(std::string_view header, std::string_view data) {
  return raw(uint64_t{header.size()}) + std::string(header) + std::string(data);
}

// Writes GGUF values one by one; `tensor` and `value` may be given in any order.
class GgufWriter {
 public:
  static std::string text(std::string_view value) {
    return raw(uint64_t{value.size()}) + std::string(value);
  }

  // A value that is already encoded.
  GgufWriter& value(std::string_view key, uint32_t type, std::string_view bytes) {
    values_ += text(key) + raw(type) + std::string(bytes);
    ++num_values_;
    return *this;
  }
  GgufWriter& integer(std::string_view key, uint32_t number) { return value(key, 4, raw(number)); }
  GgufWriter& real(std::string_view key, float number) { return value(key, 6, raw(number)); }
  GgufWriter& string(std::string_view key, std::string_view content) {
    return value(key, 8, text(content));
  }

  // Extents innermost first, as in the file.
  GgufWriter& tensor(std::string_view name, const std::vector<uint64_t>& extents, uint32_t type,
                     std::string_view data) {
    data_.resize((data_.size() + kAlignment - 1) / kAlignment * kAlignment);
    entry(name, extents, type, data_.size());
    data_ += data;
    return *this;
  }
  // An entry without data.
  GgufWriter& entry(std::string_view name, const std::vector<uint64_t>& extents, uint32_t type,
                    uint64_t offset) {
    tensors_ += text(name) + raw(static_cast<uint32_t>(extents.size()));
    for (uint64_t extent : extents) tensors_ += raw(extent);
    tensors_ += raw(type) + raw(offset);
    ++num_tensors_;
    return *this;
  }

  std::string finish(uint32_t version = 3) const {
    std::string header =
        "GGUF" + raw(version) + raw(num_tensors_) + raw(num_values_) + values_ + tensors_;
    header.resize((header.size() + kAlignment - 1) / kAlignment * kAlignment);
    return header + data_;
  }

 private:
  static constexpr size_t kAlignment = 32;
  std::string values_;
  std::string tensors_;
  std::string data_;
  uint64_t num_values_ = 0;
  uint64_t num_tensors_ = 0;
};

// The message of the exception of type E that `action` throws; empty: it throws none.
template <typename E, typename Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  }
  return "";
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace octavo::test
