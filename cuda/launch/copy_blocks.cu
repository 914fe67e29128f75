#include "kernels/copy_blocks.cuh"

#include "cuda_error.h"
#include "launch/attention.h"

namespace octavo::cuda {
namespace {

template <typename Word>
void launch(void* layer, size_t block_bytes, const BlockCopy* copies, int32_t count,
            cudaStream_t stream) {
  constexpr size_t kThreads = 128;
  const size_t words = block_bytes / sizeof(Word);
  const auto blocks = static_cast<uint32_t>((words + kThreads - 1) / kThreads);
  copy_blocks_kernel<Word><<<blocks, kThreads, 0, stream>>>(
      static_cast<Word*>(layer), static_cast<int64_t>(words), copies, count);
  check_launch("copy_blocks");
}

}  // namespace

void launch_copy_blocks(void* layer, size_t block_bytes, const BlockCopy* copies, int32_t count,
                        cudaStream_t stream) {
  if (count == 0 || block_bytes == 0) return;
  const size_t place = reinterpret_cast<uintptr_t>(layer) | block_bytes;
  if (place % sizeof(uint4) == 0) return launch<uint4>(layer, block_bytes, copies, count, stream);
  if (place % sizeof(uint32_t) == 0) {
    return launch<uint32_t>(layer, block_bytes, copies, count, stream);
  }
  launch<uint8_t>(layer, block_bytes, copies, count, stream);
}

}  // namespace octavo::cuda
