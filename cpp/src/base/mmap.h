// A file mapped read-only for as long as the object lives. Owned by the loading thread; reading the
// bytes is safe from any thread.
//
// A file that somebody shortens while it is mapped no longer backs its last pages, and touching
// them raises SIGBUS. check_size() finds such a file before it is read; shortening it between that
// check and the reading cannot be excluded, and is not: do not truncate a model in place while it
// loads (replacing it by a rename is safe).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace octavo {

class MappedFile {
 public:
  // Throws LoadError that names the path.
  explicit MappedFile(std::string path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::string file_name() const;  // the path's last component
  uint64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }

  // `length` bytes at `offset`, copied by reading, which no change of the file can hurt. Throws
  // LoadError when the file ends before them.
  std::string read(uint64_t offset, uint64_t length) const;

  // Throws LoadError when the file is shorter now than when it was mapped.
  void check_size() const;

  // These bytes are wanted soon: starts reading them in the background.
  void will_need(uint64_t offset, uint64_t length) const;
  // These bytes are not wanted again: the process gives back the pages that mirror them.
  void release(uint64_t offset, uint64_t length) const;

 private:
  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
  const std::byte* data_ = nullptr;
};

// A whole small text file. Throws LoadError when it cannot be read or has more than `max_bytes`.
std::string read_text_file(const std::string& path, uint64_t max_bytes = uint64_t{1} << 28);

}  // namespace octavo
