// Reads the little-endian values of a GGUF header in order, and never past the file's end. Lives on
// the stack of one parse.
#pragma once

#include <bit>
#include <cstring>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/mmap.h"

namespace octavo {

class GgufCursor {
 public:
  explicit GgufCursor(const MappedFile& file) : file_(file) {}

  const MappedFile& file() const { return file_; }
  uint64_t position() const { return position_; }
  uint64_t remaining() const { return file_.size() - position_; }

  // What is being read, for messages, such as "metadata 'general.name'".
  void set_subject(std::string subject) { subject_ = std::move(subject); }

  [[noreturn]] void fail(std::string_view problem, std::string_view expected) const {
    throw LoadError(str_cat(file_.path(), ": ", subject_, ": ", problem, "; expected ", expected));
  }

  template <typename T>
  T read() {
    static_assert(std::endian::native == std::endian::little);
    T value;
    std::memcpy(&value, advance(sizeof value), sizeof value);
    return value;
  }

  std::string read_string() {
    const auto length = read<uint64_t>();
    const std::byte* text = advance(length);
    return {reinterpret_cast<const char*>(text), static_cast<size_t>(length)};
  }

  // A count of things of at least `min_bytes` each, which the rest of the file can hold and a
  // budget over the whole header allows: memory stays proportional to what a real file needs.
  uint64_t read_count(uint64_t min_bytes) {
    const auto count = read<uint64_t>();
    if (count > remaining() / min_bytes) {
      fail(str_cat("count ", count, " is more than the rest of the file holds"),
           str_cat("at most ", remaining() / min_bytes));
    }
    if (count > budget_) {
      fail(str_cat("count ", count, " is too large"),
           str_cat("at most ", kMaxItems, " in a header"));
    }
    budget_ -= count;
    return count;
  }

 private:
  static constexpr uint64_t kMaxItems = uint64_t{1} << 24;

  const std::byte* advance(uint64_t bytes) {
    if (bytes > remaining()) {
      fail(str_cat("the file ends at byte ", file_.size()),
           str_cat(bytes, " bytes at byte ", position_));
    }
    const std::byte* data = file_.bytes().data() + position_;
    position_ += bytes;
    return data;
  }

  const MappedFile& file_;
  uint64_t position_ = 0;
  uint64_t budget_ = kMaxItems;
  std::string subject_ = "header";
};

}  // namespace octavo
