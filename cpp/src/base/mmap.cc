#include "base/mmap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace octavo {
namespace {

// Closes the file unless it is released.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;

  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

[[noreturn]] void throw_errno(const std::string& path, const char* action) {
  throw LoadError(str_cat(path, ": cannot be ", action, " (", std::strerror(errno),
                          "); expected a readable file"));
}

// Opens a regular file. O_NONBLOCK keeps a pipe of that name from blocking the open.
int open_file(const std::string& path) {
  if (path.find('\0') != std::string::npos) {
    throw LoadError("path: holds a zero byte; expected the name of a file");
  }
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw_errno(path, "opened");
  return fd;
}

uint64_t file_size(int fd, const std::string& path) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) throw_errno(path, "examined");
  if (!S_ISREG(status.st_mode)) throw LoadError(str_cat(path, ": expected a regular file"));
  return static_cast<uint64_t>(status.st_size);
}

std::string read_at(int fd, uint64_t offset, uint64_t length, const std::string& path) {
  std::string result(static_cast<size_t>(length), '\0');
  size_t done = 0;
  while (done < result.size()) {
    const ssize_t count =
        ::pread(fd, result.data() + done, result.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_errno(path, "read");
    if (count == 0) {
      throw LoadError(str_cat(path, ": ends at byte ", offset + done, "; expected ",
                              offset + length, " bytes"));
    }
    done += static_cast<size_t>(count);
  }
  return result;
}

uint64_t page_bytes() {
  static const auto bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

}  // namespace

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  FileDescriptor file(open_file(path_));
  size_ = file_size(file.get(), path_);
  if (size_ != 0) {  // an empty mapping is refused by the system
    void* data = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (data == MAP_FAILED) throw_errno(path_, "mapped");
    data_ = static_cast<const std::byte*>(data);
  }
  fd_ = file.release();
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  if (fd_ >= 0) ::close(fd_);
}

std::string MappedFile::file_name() const { return path_.substr(path_.rfind('/') + 1); }

std::string MappedFile::read(uint64_t offset, uint64_t length) const {
  if (offset > size_ || length > size_ - offset) {
    throw LoadError(
        str_cat(path_, ": has ", size_, " bytes; expected ", length, " at byte ", offset));
  }
  return read_at(fd_, offset, length, path_);
}

void MappedFile::check_size() const {
  const uint64_t now = file_size(fd_, path_);
  if (now >= size_) return;
  throw LoadError(str_cat(path_, ": shrank from ", size_, " to ", now,
                          " bytes while it was open; expected a file that does not change"));
}

void MappedFile::will_need(uint64_t offset, uint64_t length) const {
  if (offset >= size_ || length == 0) return;
  const uint64_t begin = offset / page_bytes() * page_bytes();
  const uint64_t end = offset + std::min(length, size_ - offset);
  // Only a hint: that it fails changes nothing but speed.
  ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_WILLNEED);
}

void MappedFile::release(uint64_t offset, uint64_t length) const {
  if (offset >= size_ || length == 0) return;
  // Pages shared with a neighbour stay, for it may be wanted yet.
  const uint64_t page = page_bytes();
  const uint64_t begin = (offset + page - 1) / page * page;
  const uint64_t end = (offset + std::min(length, size_ - offset)) / page * page;
  if (begin < end) ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

std::string read_text_file(const std::string& path, uint64_t max_bytes) {
  FileDescriptor file(open_file(path));
  const uint64_t size = file_size(file.get(), path);
  if (size > max_bytes) {
    throw LoadError(str_cat(path, ": has ", size, " bytes; expected at most ", max_bytes));
  }
  return read_at(file.get(), 0, size, path);
}

}  // namespace octavo
