// Decodes any weight encoding to float32. Stateless, callable from any thread.
#pragma once

#include <cstdint>

#include "quant/scheme.h"

namespace octavo {

// Row `row` of `matrix` as float32: out [matrix.cols].
void decode_row(const QuantizedMatrix& matrix, int64_t row, float* out);

// `blocks` whole blocks of `scheme` as float32: out [blocks * block_elements].
void decode_blocks(Scheme scheme, const std::byte* data, int64_t blocks, float* out);

}  // namespace octavo
