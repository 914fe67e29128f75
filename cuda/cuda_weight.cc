#include "cuda_weight.h"

#include <cstring>
#include <vector>

#include "base/check.h"
#include "cuda_error.h"
#include "launch/noise.h"
#include "launch/rows.h"
#include "quant/decode.h"

namespace octavo::cuda {
namespace {

constexpr size_t kPadding = 256;  // bytes that the memory of a weight is a multiple of

void check_segments(std::span<const WeightSegment> segments) {
  OCTAVO_CHECK(!segments.empty(), "pack: no segments; expected at least one");
  for (const WeightSegment& segment : segments) {
    const auto order = static_cast<int64_t>(segment.row_order.size());
    const int64_t out = segment.out_features();
    OCTAVO_CHECK(segment.in_features() == segments[0].in_features(), "pack: a segment has ",
                 segment.in_features(), " in_features; expected ", segments[0].in_features());
    OCTAVO_CHECK(order == 0 || order == out, "pack: row_order has ", order, " rows; expected ",
                 out);
    for (const int32_t row : segment.row_order) {
      OCTAVO_CHECK(row >= 0 && row < out, "pack: row_order has row ", row, "; expected less than ",
                   out);
    }
  }
}

void check_target(const WeightTarget& target) {
  OCTAVO_CHECK(is_floating(target.dtype), "pack: dtype is ", dtype_name(target.dtype),
               "; expected a floating dtype");
  if (target.integers == IntegerWeights::kInt8) {
    throw NotSupported("quantization: 'int8' on CUDA; expected auto, gguf or none");
  }
}

// Of all rows, padded. Throws OutOfMemory where they cannot be counted.
size_t weight_bytes(int64_t out, int64_t in, DType dtype) {
  int64_t bytes = 0;
  if (__builtin_mul_overflow(out, in, &bytes) ||
      __builtin_mul_overflow(bytes, static_cast<int64_t>(dtype_size(dtype)), &bytes) ||
      __builtin_add_overflow(bytes, static_cast<int64_t>(kPadding - 1), &bytes)) {
    throw OutOfMemory(str_cat("pack: a weight of ", out, " rows of ", in,
                              " has more bytes than can be counted; expected a smaller one"));
  }
  return static_cast<size_t>(bytes) / kPadding * kPadding;
}

bool floating_scheme(Scheme scheme) { return scheme <= Scheme::kBF16; }

DType dtype_of(Scheme scheme) {
  if (scheme == Scheme::kF32) return DType::kFloat32;
  return scheme == Scheme::kF16 ? DType::kFloat16 : DType::kBFloat16;
}

// The rows of a segment's matrix, in their order where it is not transposed: as they lie where they
// are floats, decoded to `dtype` where they are blocks of integers.
HostRows rows_of(const WeightSegment& segment, DType dtype) {
  const QuantizedMatrix& matrix = segment.matrix;
  const std::vector<int32_t>* order =
      segment.transposed || segment.row_order.empty() ? nullptr : &segment.row_order;
  const auto source_row = [order](int64_t row) {
    return order == nullptr ? row : (*order)[static_cast<size_t>(row)];
  };
  HostRows rows{.rows = matrix.rows, .cols = matrix.cols, .dtype = dtype, .write = {}};
  if (floating_scheme(matrix.scheme)) {
    rows.dtype = dtype_of(matrix.scheme);
    const int64_t bytes = matrix.row_bytes();
    rows.write = [&matrix, source_row, bytes](int64_t row, std::byte* out) {
      std::memcpy(out, matrix.data + source_row(row) * bytes, static_cast<size_t>(bytes));
    };
    return rows;
  }
  rows.write = [&matrix, source_row, dtype](int64_t row, std::byte* out) {
    thread_local std::vector<float> values;
    values.resize(static_cast<size_t>(matrix.cols));
    decode_row(matrix, source_row(row), values.data());
    convert_from_float(values.data(), values.size(), dtype, out);
  };
  return rows;
}

// Packs segments one after the other into the memory of one weight.
class Packer {
 public:
  Packer(Uploader& uploader, Backend& backend, DType dtype)
      : uploader_(uploader), backend_(backend), dtype_(dtype) {}

  // out: [out_features, in_features] on the device
  void pack(const WeightSegment& segment, void* out) {
    if (segment.matrix.noise_seed != 0) return make_noise(segment, out);
    const HostRows rows = rows_of(segment, dtype_);
    if (!segment.transposed) return uploader_.upload(rows, out, dtype_);
    Buffer source = temporary(static_cast<size_t>(rows.rows) * static_cast<size_t>(rows.cols) *
                              dtype_size(rows.dtype));
    uploader_.upload(rows, source.data(), rows.dtype);
    const Buffer order = order_of(segment);
    launch_convert({.source = source.data(),
                    .source_dtype = rows.dtype,
                    .out = out,
                    .out_dtype = dtype_,
                    .rows = segment.out_features(),
                    .cols = segment.in_features(),
                    .row_order = order.as<const int32_t>(),
                    .transposed = true},
                   uploader_.stream());
    uploader_.wait();  // the buffers go
  }

 private:
  void make_noise(const WeightSegment& segment, void* out) {
    const Buffer order = order_of(segment);
    launch_noise({.seed = segment.matrix.noise_seed,
                  .matrix_dtype = dtype_of(segment.matrix.scheme),
                  .out = out,
                  .out_dtype = dtype_,
                  .rows = segment.out_features(),
                  .cols = segment.in_features(),
                  .row_order = order.as<const int32_t>(),
                  .transposed = segment.transposed},
                 uploader_.stream());
    if (order.data() != nullptr) uploader_.wait();
  }

  Buffer temporary(size_t bytes) { return allocate_for("pack", backend_, bytes); }

  // The order of a segment's rows on the device; none: as they are.
  Buffer order_of(const WeightSegment& segment) {
    const std::vector<int32_t>& order = segment.row_order;
    if (order.empty()) return {};
    Buffer buffer = temporary(order.size() * sizeof(int32_t));
    check_cuda(cudaMemcpyAsync(buffer.data(), order.data(), order.size() * sizeof(int32_t),
                               cudaMemcpyHostToDevice, uploader_.stream()),
               "pack");
    return buffer;
  }

  Uploader& uploader_;
  Backend& backend_;
  DType dtype_;
};

}  // namespace

std::unique_ptr<PackedWeight> pack_weight(Uploader& uploader, Backend& backend,
                                          std::span<const WeightSegment> segments,
                                          const WeightTarget& target) {
  check_target(target);
  check_segments(segments);
  const int64_t in = segments[0].in_features();
  int64_t out = 0;
  for (const WeightSegment& segment : segments) out += segment.out_features();
  Buffer memory = backend.allocate(weight_bytes(out, in, target.dtype));
  Packer packer(uploader, backend, target.dtype);
  auto* place = static_cast<std::byte*>(memory.data());
  for (const WeightSegment& segment : segments) {
    packer.pack(segment, place);
    place += segment.out_features() * in * static_cast<int64_t>(dtype_size(target.dtype));
  }
  // Kernels that are launched early read weights before the stream comes to them.
  uploader.wait();
  return std::make_unique<CudaWeight>(out, in, target.dtype, std::move(memory));
}

}  // namespace octavo::cuda
