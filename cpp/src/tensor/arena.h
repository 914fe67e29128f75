// Workspace for the activations of one step: a bump allocator over one Buffer. Owned by the model
// runner, reset before each step, used on the step thread. In measuring mode nothing backs it and
// it only counts, which is how the workspace is sized before it is allocated.
#pragma once

#include <algorithm>
#include <cstddef>
#include <initializer_list>

#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace octavo {

class Arena {
 public:
  static constexpr size_t kAlignment = 64;  // bytes: a cache line, and one AVX-512 register

  Arena() = default;  // measures
  explicit Arena(Buffer buffer) : buffer_(std::move(buffer)) {}

  bool measuring() const { return buffer_.data() == nullptr; }
  size_t peak_bytes() const { return peak_; }
  size_t capacity_bytes() const { return buffer_.bytes(); }

  // Uninitialised memory, valid until the reset or until the enclosing Scope ends.
  Tensor allocate(DType dtype, std::initializer_list<int64_t> shape);

  void reset() { used_ = 0; }

  // Gives back, at its end, what was allocated during its life.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
    ~Scope() { arena_.used_ = mark_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    size_t mark_;
  };

 private:
  Buffer buffer_;
  size_t used_ = 0;
  size_t peak_ = 0;
};

}  // namespace octavo
