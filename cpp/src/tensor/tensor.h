// A view of up to four dimensions on memory that somebody else owns. The last dimension is always
// contiguous; strides are in elements. Copied freely, used on the step thread.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

#include "base/check.h"
#include "tensor/dtype.h"

namespace octavo {

class Tensor {
 public:
  static constexpr int kMaxRank = 4;

  Tensor() = default;
  // A contiguous tensor.
  Tensor(void* data, DType dtype, std::initializer_list<int64_t> shape)
      : data_(data), dtype_(dtype), rank_(static_cast<int>(shape.size())) {
    OCTAVO_CHECK(rank_ <= kMaxRank);
    int i = 0;
    for (int64_t extent : shape) shape_[i++] = extent;
    int64_t stride = 1;
    for (i = rank_ - 1; i >= 0; --i) {
      strides_[i] = stride;
      stride *= shape_[i];
    }
  }

  explicit operator bool() const { return rank_ != 0; }
  DType dtype() const { return dtype_; }
  int rank() const { return rank_; }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t stride(int i) const { return strides_[i]; }
  int64_t size() const {
    int64_t size = 1;
    for (int i = 0; i < rank_; ++i) size *= shape_[i];
    return size;
  }
  bool contiguous() const {
    int64_t stride = 1;
    for (int i = rank_ - 1; i >= 0; --i) {
      if (shape_[i] != 1 && strides_[i] != stride) return false;
      stride *= shape_[i];
    }
    return true;
  }

  void* data() const { return data_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  // The start of row i of the first dimension.
  template <typename T>
  T* row(int64_t i) const {
    return as<T>() + i * strides_[0];
  }

  // Elements [begin, end) of the first dimension.
  Tensor rows(int64_t begin, int64_t end) const { return narrowed(0, begin, end); }
  // Elements [begin, end) of the last dimension.
  Tensor columns(int64_t begin, int64_t end) const { return narrowed(rank_ - 1, begin, end); }
  // The last dimension n as [parts, n / parts].
  Tensor split_last(int64_t parts) const {
    OCTAVO_CHECK(rank_ > 0 && rank_ < kMaxRank && parts > 0 && shape_[rank_ - 1] % parts == 0);
    Tensor result = *this;
    const int64_t each = shape_[rank_ - 1] / parts;
    result.shape_[rank_ - 1] = parts;
    result.strides_[rank_ - 1] = each;
    result.shape_[rank_] = each;
    result.strides_[rank_] = 1;
    ++result.rank_;
    return result;
  }

 private:
  Tensor narrowed(int axis, int64_t begin, int64_t end) const {
    OCTAVO_CHECK(axis >= 0 && 0 <= begin && begin <= end && end <= shape_[axis]);
    Tensor result = *this;
    result.data_ = static_cast<char*>(data_) +
                   begin * strides_[axis] * static_cast<int64_t>(dtype_size(dtype_));
    result.shape_[axis] = end - begin;
    return result;
  }

  void* data_ = nullptr;
  DType dtype_ = DType::kFloat32;
  int rank_ = 0;
  std::array<int64_t, kMaxRank> shape_{};
  std::array<int64_t, kMaxRank> strides_{};
};

}  // namespace octavo
