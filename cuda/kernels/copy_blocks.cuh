// Copies of whole cache blocks, one after the other: each thread goes over all copies with the same
// bytes of a block, so that a later copy sees what an earlier one wrote without any waiting.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/op_args.h"

namespace octavo::cuda {

// Word is what a thread copies: its size divides a block's bytes and the layer's address.
template <typename Word>
__global__ void __launch_bounds__(256)
    copy_blocks_kernel(Word* layer, int64_t block_words, const BlockCopy* copies, int32_t count) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= block_words) return;
  Word* words = layer + i;
  constexpr int kAtOnce = 4;
  for (int32_t first = 0; first < count; first += kAtOnce) {
    const int32_t here = min(kAtOnce, count - first);
    BlockCopy copy[kAtOnce];
    bool chained = false;
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      copy[j] = copies[first + min(j, here - 1)];
      for (int k = 0; k < j; ++k) chained |= copy[j].source == copy[k].target;
    }
    if (chained || here < kAtOnce) {
      for (int j = 0; j < here; ++j) {
        const BlockCopy one = copies[first + j];
        words[one.target * block_words] = words[one.source * block_words];
      }
      continue;
    }
    // Why all reads first: none depends on these writes, and they overlap.
    Word word[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) word[j] = words[copy[j].source * block_words];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) words[copy[j].target * block_words] = word[j];
  }
}

}  // namespace octavo::cuda
