// The kernels of one instruction set, as plain functions on raw pointers. Every instruction set is
// compiled from the same sources (kernels.inc) in a namespace of its own. Tables are constant;
// kernels keep no state, and run on any thread of the pool.
//
// Every kernel gives a row of the batch bits that depend on that row alone: not on how many rows,
// on the tile, or on the thread. The order of every sum is a function of the shapes of the model.
#pragma once

#include <cstdint>

#include "backend/op_args.h"

namespace octavo {

// Output features of one panel of a packed weight: [out / 32][in][32], the last one padded with 0.
inline constexpr int64_t kPanelWidth = 32;
// Input features whose products are summed before they join the total.
inline constexpr int64_t kInputBlock = 256;
// Rows of the batch and panels of one task at most.
inline constexpr int64_t kMaxTaskRows = 96;
inline constexpr int64_t kMaxTaskPanels = 8;

// Indexes the kernels of an element type; the values are those of DType.
inline constexpr int kNumElementTypes = 3;  // float32, float16, bfloat16

// Rows [row_begin, row_end) of the batch times panels [panel_begin, panel_end).
struct LinearTask {
  const float* x;  // [rows, in]
  int64_t x_stride;
  const void* weight;  // panels
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

// Query rows of one sequence and one KV head. A block's keys are [kv_heads, head_dim, block_size],
// and then its values, [kv_heads, block_size, head_dim].
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
  // queries, sums, scores, running maximum and total, and keys gathered from odd block sizes
  return rows * (2 * padded + kKeyChunk + 16) + padded * kKeyChunk;
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

struct KernelTable {
  const char* isa;
  void (*linear[kNumElementTypes])(const LinearTask& task);
  void (*attention[kNumElementTypes])(const AttentionTask& task);
  void (*rope_store[kNumElementTypes])(const RopeStoreTask& task);
  // Writes columns [begin, end) of a panel from rows [32][in] of float32, null where padding.
  void (*pack_panel[kNumElementTypes])(const float* const* rows, int64_t in, void* panel);
  // Row `row` of a packed weight, as float32; out += with accumulate.
  void (*read_row[kNumElementTypes])(const void* weight, int64_t row, int64_t in, bool accumulate,
                                     float* out);
  // Writes `count` elements of float32 as the element type.
  void (*convert[kNumElementTypes])(const float* source, int64_t count, void* out);
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
#endif

}  // namespace octavo
