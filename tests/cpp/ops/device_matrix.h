// Matrices in a back end's memory that notice what they should not see: outputs start as NaN, and a
// strided one has NaN columns on both sides, which must be NaN still when it is read. Values are
// float32 on the host, and rounded to the matrix's dtype.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

#include "backend/backend.h"

namespace octavo::test {

enum class Layout { kDense, kStrided, kWide };  // wide: another stride

// For an argument beside one of `layout`, so that no stride passes for another.
inline Layout beside(Layout layout) { return layout == Layout::kStrided ? Layout::kWide : layout; }

// [rows, cols] of a floating dtype.
class DeviceMatrix {
 public:
  DeviceMatrix(Backend& backend, int64_t rows, int64_t cols, Layout layout = Layout::kDense,
               DType dtype = DType::kFloat32)
      : backend_(&backend),
        left_(layout == Layout::kDense ? 0 : kLeft),
        width_(left_ + cols + right_of(layout)),
        buffer_(backend.allocate(static_cast<size_t>(rows * width_) * dtype_size(dtype))),
        whole_(buffer_.data(), dtype, {rows, width_}) {
    view = whole_.columns(left_, left_ + cols);
    upload_whole(std::vector<float>(static_cast<size_t>(rows * width_), kNaN));
  }
  DeviceMatrix(Backend& backend, int64_t rows, int64_t cols, const std::vector<float>& values,
               Layout layout = Layout::kDense, DType dtype = DType::kFloat32)
      : DeviceMatrix(backend, rows, cols, layout, dtype) {
    upload(values);
  }

  void upload(const std::vector<float>& values) {
    const int64_t cols = view.dim(1);
    REQUIRE(static_cast<int64_t>(values.size()) == view.size());
    std::vector<float> host(static_cast<size_t>(view.dim(0) * width_), kNaN);
    for (int64_t i = 0; i < view.size(); ++i)
      host[i / cols * width_ + left_ + i % cols] = values[i];
    upload_whole(host);
  }

  std::vector<float> download() const {
    std::vector<float> host(static_cast<size_t>(whole_.size()));
    std::vector<std::byte> bytes(host.size() * dtype_size(whole_.dtype()));
    backend_->copy_to_host(bytes.data(), whole_);
    convert_to_float(whole_.dtype(), bytes.data(), host.size(), host.data());
    std::vector<float> values;
    values.reserve(static_cast<size_t>(view.size()));
    int64_t written_outside = 0;
    for (int64_t i = 0; i < whole_.size(); ++i) {
      const int64_t column = i % width_ - left_;
      const bool inside = column >= 0 && column < view.dim(1);
      if (inside) values.push_back(host[i]);
      if (!inside && !std::isnan(host[i])) ++written_outside;
    }
    CHECK_MESSAGE(written_outside == 0, "elements outside of the view were written");
    return values;
  }

  Tensor view;  // [rows, cols]

 private:
  static constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  static constexpr int64_t kLeft = 3;  // odd, so that rows are not aligned

  static int64_t right_of(Layout layout) {
    return layout == Layout::kDense ? 0 : layout == Layout::kStrided ? 6 : 13;
  }

  void upload_whole(const std::vector<float>& values) {
    std::vector<std::byte> bytes(values.size() * dtype_size(whole_.dtype()));
    convert_from_float(values.data(), values.size(), whole_.dtype(), bytes.data());
    backend_->copy_to_device(whole_, bytes.data());
  }

  Backend* backend_;
  int64_t left_, width_;
  Buffer buffer_;
  Tensor whole_;  // [rows, width]
};

// A vector in a back end's memory: float32 or int32 [size].
template <typename T>
struct DeviceVector {
  DeviceVector(Backend& backend, const std::vector<T>& values)
      : buffer(backend.allocate(values.size() * sizeof(T))),
        view(buffer.data(), std::is_same_v<T, int32_t> ? DType::kInt32 : DType::kFloat32,
             {static_cast<int64_t>(values.size())}) {
    backend.copy_to_device(view, values.data());
  }

  Buffer buffer;
  Tensor view;
};

template <typename T>
std::vector<T> download_vector(Backend& backend, const Tensor& tensor) {
  std::vector<T> values(static_cast<size_t>(tensor.size()));
  backend.copy_to_host(values.data(), tensor);
  return values;
}

// All rows of a packed weight, [out_features, in_features], as the back end's tables give them.
inline std::vector<float> read_back(Backend& backend, const PackedWeight& weight) {
  std::vector<int32_t> ids(static_cast<size_t>(weight.out_features()));
  std::iota(ids.begin(), ids.end(), 0);
  const DeviceVector<int32_t> device_ids(backend, ids);
  const DeviceMatrix out(backend, weight.out_features(), weight.in_features(), Layout::kDense,
                         backend.activation_dtype(weight.dtype()));
  backend.embed({.ids = device_ids.view, .table = &weight, .out = out.view});
  return out.download();
}

}  // namespace octavo::test
