// The kernels of one instruction set, as plain functions on raw pointers. Every instruction set is
// compiled from the same sources (kernels/, kernels.cmake) in a namespace of its own, or has
// another one's kernels where its own would be the same. Tables are constant; kernels keep no
// state, and run on any thread of the pool.
//
// Every kernel gives a row of the batch bits that depend on that row alone: not on how many rows,
// on the tile, or on the thread. The order of every sum is a function of the shapes of the model.
#pragma once

#include <cstdint>

#include "backend/op_args.h"
#include "cpu/weight_form.h"

namespace octavo {

// Input features whose products are summed before they join the total.
inline constexpr int64_t kInputBlock = 256;
// Input features of a block where there are so many rows. A build with OCTAVO_SPLIT_SUM breaks the
// rule above, for the test of it.
constexpr int64_t input_block([[maybe_unused]] int64_t rows) {
#if defined(OCTAVO_SPLIT_SUM)
  if (rows > 1) return kInputBlock / 8;
#endif
  return kInputBlock;
}
// Rows of the batch and panels of one task at most.
inline constexpr int64_t kMaxTaskRows = 96;
inline constexpr int64_t kMaxTaskPanels = 8;

// Floating forms of weights, and elements of the KV cache; the values are those of DType.
inline constexpr int kNumElementTypes = 3;  // float32, float16, bfloat16
inline constexpr int kNumCacheTypes = 4;    // and int8

// Rows [row_begin, row_end) of the batch times panels [panel_begin, panel_end).
struct LinearTask {
  const void* x;        // [rows, in]: float32, or what prepare_row made of it
  int64_t x_stride;     // bytes
  const void* weight;   // panels
  int64_t panel_bytes;  // of one panel
  int64_t in, out;
  const float* bias;      // [out] or null
  const float* residual;  // [rows, out] or null
  int64_t residual_stride;
  float* y;  // [rows, out]
  int64_t y_stride;
  Activation activation;
  int64_t row_begin, row_end;
  int64_t panel_begin, panel_end;
  // Gated: panel p + up_panel holds the "up" features of panel p; y = activation(p) * up, [rows,
  // out], and the bias of "up" follows that of the gate. 0: not gated.
  int64_t up_panel;
  float* scratch;  // [linear_scratch_floats(rows, panels)], aligned to 64 bytes
};

// A row of packed x is a little longer than a block, so that rows do not share a set of the cache.
inline constexpr int64_t kPackedStride = kInputBlock + 16;
constexpr int64_t linear_scratch_floats(int64_t rows, int64_t panels, bool gated) {
  // a block of weights in float32, rows of x, and sums
  return kInputBlock * kPanelWidth + rows * kPackedStride +
         (gated ? 2 : 1) * rows * panels * kPanelWidth;
}

// Keys that are scored before their values are summed: a fixed grid over positions, from 0.
inline constexpr int64_t kKeyChunk = 64;

// A block's keys are [kv_heads, head_dim, block_size], and then its values, [kv_heads, block_size,
// head_dim]. bfloat16 and int8 stand in pairs, as dot products read them: keys [kv_heads, head_dim
// / 2, block_size, 2], values [kv_heads, block_size / 2, head_dim, 2], halves rounded up. The keys
// and the values of a head of int8 are followed by float32 scales [block_size]. These are the
// elements of one head, scales included.
constexpr bool kv_paired(DType dtype) { return dtype == DType::kBFloat16 || dtype == DType::kInt8; }
// `numbers`, and with int8 their scales, on an address for float32.
constexpr int64_t kv_with_scales(DType dtype, int64_t numbers, int64_t block_size) {
  return dtype == DType::kInt8 ? (numbers + 3) / 4 * 4 + 4 * block_size : numbers;
}
constexpr int64_t kv_key_elements(DType dtype, int64_t head_dim, int64_t block_size) {
  const int64_t padded = kv_paired(dtype) ? (head_dim + 1) / 2 * 2 : head_dim;
  return kv_with_scales(dtype, padded * block_size, block_size);
}
constexpr int64_t kv_value_elements(DType dtype, int64_t head_dim, int64_t block_size) {
  const int64_t padded = kv_paired(dtype) ? (block_size + 1) / 2 * 2 : block_size;
  return kv_with_scales(dtype, padded * head_dim, block_size);
}

// Query rows of one sequence and one KV head.
struct AttentionTask {
  const float* q;  // [tokens, heads, head_dim], at the first token and at the KV head's first head
  int64_t q_token_stride, q_head_stride;
  float* out;  // [tokens, heads, head_dim], at the same place
  int64_t out_token_stride;
  const void* kv;          // the layer's blocks
  int64_t block_elements;  // of one block
  int64_t block_size, kv_heads, head_dim;
  const int32_t* block_table;
  int64_t tokens;          // of this task
  int64_t first_position;  // of the first token in its sequence
  int64_t kv_head;
  int64_t group;  // query heads of the KV head
  float scale;
  int64_t window;  // 0: none
  float* scratch;  // [attention_scratch_floats(tokens * group, head_dim)], aligned to 64 bytes
};

constexpr int64_t padded_head_dim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
constexpr int64_t attention_scratch_floats(int64_t rows, int64_t head_dim) {
  const int64_t padded = padded_head_dim(head_dim);
  // queries, sums, weights, running maximum and total; a chunk's keys and values
  return rows * (2 * padded + kKeyChunk + 2) + 2 * padded * kKeyChunk;
}

// One token's rotation and store.
struct RopeStoreTask {
  float* q;  // [heads, head_dim]
  int64_t q_head_stride, heads;
  float* k;  // [kv_heads, head_dim]
  int64_t k_head_stride;
  const float* v;  // [kv_heads, head_dim]
  int64_t v_head_stride, kv_heads, head_dim;
  const float* cos_sin;  // [rotary_dim], or null
  int64_t rotary_dim;
  void* block;  // of the token's slot
  int64_t block_size, place;
};

// How rows of x are prepared for the weights of one form.
struct PreparedRow {
  // Null: they are taken as they are.
  void (*prepare)(const float* x, int64_t in, void* out) = nullptr;
  int64_t (*bytes)(int64_t in) = nullptr;
};

struct KernelTable {
  const char* isa;
  void (*linear[kNumWeightForms])(const LinearTask& task);
  PreparedRow prepared_row[kNumWeightForms];
  void (*attention[kNumCacheTypes])(const AttentionTask& task);
  void (*rope_store[kNumCacheTypes])(const RopeStoreTask& task);
  // Writes a panel of a floating form from rows [32][in] of float32, null where padding.
  void (*pack_panel[kNumElementTypes])(const float* const* rows, int64_t in, void* panel);
  // Row `lane` of a panel of a floating form, as float32.
  void (*read_row[kNumElementTypes])(const void* panel, int64_t lane, int64_t in, float* out);
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t count, float* out);
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps,
                     int64_t count, float* out);
  void (*gate)(Activation activation, const float* gate, const float* up, int64_t count,
               float* out);
};

const KernelTable& generic_kernels();
#if defined(__x86_64__)
const KernelTable& avx2_kernels();
const KernelTable& avx512_kernels();
const KernelTable& avx512_vnni_kernels();
const KernelTable& avx512_bf16_kernels();
const KernelTable& avx512_amx_kernels();
#elif defined(__aarch64__)
const KernelTable& neon_kernels();
const KernelTable& neon_dot_kernels();
const KernelTable& neon_bf16_kernels();
#endif

}  // namespace octavo
