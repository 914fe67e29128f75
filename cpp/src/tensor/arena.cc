#include "tensor/arena.h"

namespace octavo {

Tensor Arena::allocate(DType dtype, std::initializer_list<int64_t> shape) {
  size_t bytes = dtype_size(dtype);
  for (int64_t extent : shape) bytes *= static_cast<size_t>(extent);
  const size_t begin = used_;
  used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  peak_ = std::max(peak_, used_);
  if (measuring()) return Tensor(nullptr, dtype, shape);
  OCTAVO_CHECK(used_ <= buffer_.bytes(), "arena: ", used_, " bytes asked for, ", buffer_.bytes(),
               " planned");
  return Tensor(static_cast<char*>(buffer_.data()) + begin, dtype, shape);
}

}  // namespace octavo
