// The encodings in which checkpoints store weights, and the canonical view of one encoded matrix.
// GGUF's block formats are described in ggml's quantisation headers; a block is a run of elements
// of one row that share scales.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace octavo {

enum class Scheme : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};

struct SchemeInfo {
  std::string_view name;  // as GGUF spells it, such as "Q4_K"
  int32_t block_elements;
  int32_t block_bytes;
};

const SchemeInfo& scheme_info(Scheme scheme);

// A matrix as it lies in a checkpoint: rows of whole blocks, one after the other. Or one of noise,
// which lies nowhere: element i, counted row by row, is noise_value(noise_seed, i), rounded to the
// scheme, which is floating.
struct QuantizedMatrix {
  Scheme scheme = Scheme::kF32;
  int64_t rows = 0;
  int64_t cols = 0;                 // a multiple of the scheme's block_elements
  const std::byte* data = nullptr;  // [rows, cols], not necessarily aligned
  uint64_t noise_seed = 0;          // not 0: of noise, and data is null

  int64_t row_bytes() const {
    const SchemeInfo& info = scheme_info(scheme);
    return cols / info.block_elements * info.block_bytes;
  }
};

}  // namespace octavo
