// The owner of one allocation of device memory. Made by Backend::allocate, movable, returned to the
// back end on destruction; it must not outlive the back end.
#pragma once

#include <cstddef>
#include <utility>

namespace octavo {

class Buffer {
 public:
  using Release = void (*)(void* data, size_t bytes, void* owner);

  Buffer() = default;
  Buffer(void* data, size_t bytes, Release release, void* owner = nullptr)
      : data_(data), bytes_(bytes), release_(release), owner_(owner) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) release_(data_, bytes_, owner_);
  }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(release_, other.release_);
    std::swap(owner_, other.owner_);
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
  Release release_ = nullptr;
  void* owner_ = nullptr;
};

}  // namespace octavo
