// Attention over the KV cache, for every type of its elements.
// clang-format off
#include "cpu/kernels.inc"
#include "cpu/linear_task.h"
#include "cpu/rounded_rows.h"
#if defined(OCTAVO_ISA_AVX512_BF16)
#include "cpu/bfloat16_pairs.h"
#endif
#include "cpu/kv_layout.h"
#include "cpu/kv_chunk.h"
#include "cpu/attention_kernel.h"
// clang-format on

namespace octavo::OCTAVO_ISA_NAMESPACE {

void add_attention(KernelTable& table) {
  table.attention[static_cast<int>(DType::kFloat32)] = attention<float>;
  table.attention[static_cast<int>(DType::kFloat16)] = attention<Float16>;
  table.attention[static_cast<int>(DType::kBFloat16)] = attention<BFloat16>;
  table.attention[static_cast<int>(DType::kInt8)] = attention<Int8>;
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
