// Weights on a device: what a back end made of a checkpoint's matrices. Owned by the layer that
// made it, read-only, and only its own back end looks inside.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quant/scheme.h"
#include "tensor/dtype.h"

namespace octavo {

// One matrix of a checkpoint on its way into a packed weight.
struct WeightSegment {
  QuantizedMatrix matrix;
  // Row i of the result is row row_order[i] of the matrix; empty: in order. (GGUF permutes the rows
  // of Llama's q and k.)
  std::vector<int32_t> row_order;
  // The matrix is stored [in, out], as GPT-2's Conv1D, and is transposed to [out, in].
  bool transposed = false;

  int64_t out_features() const { return transposed ? matrix.cols : matrix.rows; }
  int64_t in_features() const { return transposed ? matrix.rows : matrix.cols; }
};

// Which matrices are multiplied as integers, where the back end has a form for them; all others
// become WeightTarget::dtype.
enum class IntegerWeights : uint8_t {
  kNone,
  kKeep,  // those that the checkpoint stores as integers
  kInt8,  // those, and the others quantized to int8 with a scale for each output feature
};

// What a checkpoint's matrices become.
struct WeightTarget {
  // NOLINTNEXTLINE(google-explicit-constructor): a dtype is the usual target.
  WeightTarget(DType floating, IntegerWeights integer = IntegerWeights::kNone)
      : dtype(floating), integers(integer) {}

  DType dtype;  // of floating weights
  IntegerWeights integers;
};

class PackedWeight {
 public:
  PackedWeight(int64_t out_features, int64_t in_features, DType dtype, size_t bytes)
      : out_features_(out_features), in_features_(in_features), dtype_(dtype), bytes_(bytes) {}
  virtual ~PackedWeight() = default;
  PackedWeight(const PackedWeight&) = delete;
  PackedWeight& operator=(const PackedWeight&) = delete;

  int64_t out_features() const { return out_features_; }
  int64_t in_features() const { return in_features_; }
  DType dtype() const { return dtype_; }   // of what is not integers
  size_t bytes() const { return bytes_; }  // of device memory

 private:
  int64_t out_features_;
  int64_t in_features_;
  DType dtype_;
  size_t bytes_;
};

}  // namespace octavo
