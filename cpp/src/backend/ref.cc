#include "backend/ref.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "backend/registry.h"
#include "base/check.h"
#include "quant/decode.h"
#include "tensor/arena.h"

namespace octavo {

RefWeight::RefWeight(int64_t out_features, int64_t in_features, DType dtype)
    : PackedWeight(out_features, in_features, dtype,
                   static_cast<size_t>(out_features * in_features) * dtype_size(dtype)),
      data_(bytes()) {}

void RefWeight::write_row(int64_t row, const float* values) {
  const size_t begin = static_cast<size_t>(row * in_features()) * dtype_size(dtype());
  convert_from_float(values, static_cast<size_t>(in_features()), dtype(), data_.data() + begin);
}

void RefWeight::read_row(int64_t row, float* out) const {
  const size_t begin = static_cast<size_t>(row * in_features()) * dtype_size(dtype());
  convert_to_float(dtype(), data_.data() + begin, static_cast<size_t>(in_features()), out);
}

DeviceInfo RefBackend::info() const { return {.name = "ref", .isa = "scalar", .num_threads = 1}; }

// calloc leaves untouched pages unbacked: a KV cache takes only what is used of it.
Buffer RefBackend::allocate(size_t bytes) {
  void* memory = bytes <= PTRDIFF_MAX - Arena::kAlignment
                     ? std::calloc(bytes + Arena::kAlignment, 1)
                     : nullptr;
  if (memory == nullptr) {
    throw OutOfMemory(str_cat("allocate: no ", bytes, " bytes of memory; expected a smaller size"));
  }
  const auto address = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t skip = (Arena::kAlignment - address % Arena::kAlignment) % Arena::kAlignment;
  return Buffer(
      static_cast<char*>(memory) + skip, bytes,
      [](void*, size_t, void* owner) { std::free(owner); }, memory);
}

void RefBackend::copy_to_device(const Tensor& target, const void* source) {
  OCTAVO_CHECK(target.contiguous(), "copy_to_device: expected a contiguous tensor");
  const size_t bytes = static_cast<size_t>(target.size()) * dtype_size(target.dtype());
  if (bytes != 0) std::memcpy(target.data(), source, bytes);
}

void RefBackend::copy_to_host(void* target, const Tensor& source) {
  OCTAVO_CHECK(source.contiguous(), "copy_to_host: expected a contiguous tensor");
  const size_t bytes = static_cast<size_t>(source.size()) * dtype_size(source.dtype());
  if (bytes != 0) std::memcpy(target, source.data(), bytes);
}

namespace {

int64_t checked_out_features(std::span<const WeightSegment> segments) {
  OCTAVO_CHECK(!segments.empty(), "pack: no segments; expected at least one");
  int64_t total = 0;
  for (const WeightSegment& segment : segments) {
    OCTAVO_CHECK(segment.in_features() == segments[0].in_features(), "pack: a segment has ",
                 segment.in_features(), " in_features; expected ", segments[0].in_features());
    const auto order = static_cast<int64_t>(segment.row_order.size());
    OCTAVO_CHECK(order == 0 || order == segment.out_features(), "pack: row_order has ", order,
                 " rows; expected ", segment.out_features());
    for (int32_t row : segment.row_order) {
      OCTAVO_CHECK(row >= 0 && row < segment.out_features(), "pack: row_order has row ", row,
                   "; expected less than ", segment.out_features());
    }
    total += segment.out_features();
  }
  return total;
}

// Writes one segment at row `base` of `weight`.
void pack_segment(const WeightSegment& segment, int64_t base, RefWeight& weight) {
  const int64_t out = segment.out_features(), in = segment.in_features();
  std::vector<float> values(static_cast<size_t>(out * in));  // [out, in], before row_order
  std::vector<float> line(static_cast<size_t>(segment.matrix.cols));
  for (int64_t row = 0; row < segment.matrix.rows; ++row) {
    decode_row(segment.matrix, row, line.data());
    for (int64_t column = 0; column < segment.matrix.cols; ++column) {
      const int64_t index = segment.transposed ? column * in + row : row * in + column;
      values[index] = line[column];
    }
  }
  for (int64_t i = 0; i < out; ++i) {
    const int64_t row = segment.row_order.empty() ? i : segment.row_order[i];
    weight.write_row(base + i, values.data() + row * in);
  }
}

}  // namespace

std::unique_ptr<PackedWeight> RefBackend::pack(std::span<const WeightSegment> segments,
                                               const WeightTarget& target) {
  OCTAVO_CHECK(is_floating(target.dtype), "pack: dtype is ", dtype_name(target.dtype),
               "; expected a floating dtype");
  const int64_t out_features = checked_out_features(segments);
  auto weight = std::make_unique<RefWeight>(out_features, segments[0].in_features(), target.dtype);
  int64_t base = 0;
  for (const WeightSegment& segment : segments) {
    pack_segment(segment, base, *weight);
    base += segment.out_features();
  }
  return weight;
}

std::unique_ptr<Backend> make_ref_backend() { return std::make_unique<RefBackend>(); }

}  // namespace octavo
