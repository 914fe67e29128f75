// The product of a few rows of x with a weight, out = activation(x * weight^T + bias) + residual,
// or activation(gate) * up of two halves of the weight: each weight is read once, from memory
// straight to the tensor cores. 16-bit floats; skinny_float.cuh has float32.
//
// A block makes a tile of outputs: `kHalves` groups of 8 rows of the weight, which are the rows of
// the first operand of m16n8k16, times 8 * kTokenTiles tokens, its columns. Its 8 warps share k:
// runs of 128 elements go to them in turn, so which products a warp sums, and in which order,
// depends on in_features alone, and a row's result on no other row.
//
// Within a chunk of 32 elements of k, thread t of a quad takes elements 8t to 8t + 7 of its rows
// and tokens, 16 bytes: (0, 1) and (2, 3) are its pairs of k in a first instruction, (4, 5) and (6,
// 7) in a second one. That permutes k alike in both operands, and the sum is the same.
#pragma once

#include "backend/op_args.h"
#include "kernels/activation.cuh"
#include "kernels/async_copy.cuh"
#include "kernels/dependent.cuh"
#include "kernels/mma.cuh"
#include "kernels/vec.cuh"

namespace octavo::cuda {

struct SkinnyParams {
  const void* weight;                             // [rows, in], 16-byte aligned
  const void* x;                                  // [tokens, in], rows 16-byte aligned
  const float* bias;                              // [rows], or null
  const void* residual;                           // [tokens, out_features], or null
  void* out;                                      // [tokens, out_features]
  int64_t x_stride, residual_stride, out_stride;  // elements
  int32_t tokens, in, out_features;
  Activation activation;
  bool gated;      // rows are out_features of gate, then as many of up
  bool float_out;  // out is float32
  // The weight that is read after this one, or null: bytes of it that come to the L2 cache when
  // this one has been read, while nothing else uses the memory.
  const void* next;
  int64_t next_bytes;
};

inline constexpr int kSkinnyWarps = 8;
inline constexpr int kSkinnyThreads = 32 * kSkinnyWarps;
inline constexpr int kSkinnyStages = 4;  // of a warp's copies, all but one of them in flight
inline constexpr int kStageCopies = 4;   // 16-byte pieces of a thread in a stage
inline constexpr int kChunk = 32;        // elements of k in two instructions
inline constexpr int kRunChunks = 4;     // chunks that one warp takes in a row

// Where things lie is said by functions that the host can check too.
#define OCTAVO_SKINNY_MAP __host__ __device__ constexpr

// How often each warp gets a run, whether or not the last ones exist.
OCTAVO_SKINNY_MAP int skinny_runs(int in) {
  const int chunks = (in + kChunk - 1) / kChunk, runs = (chunks + kRunChunks - 1) / kRunChunks;
  return (runs + kSkinnyWarps - 1) / kSkinnyWarps;
}

// The chunk `u` of stage `stage` of a warp: a run of 4 chunks takes kHalves stages.
template <int kHalves>
OCTAVO_SKINNY_MAP int skinny_chunk(int stage, int warp, int u) {
  constexpr int kChunks = kStageCopies / kHalves;  // of a stage
  return (stage / kHalves * kSkinnyWarps + warp) * kRunChunks + stage % kHalves * kChunks + u;
}

// The row of the weight that is row `g` of group `half` of a tile; with gates, every other group is
// of `up`, eight rows below its gates in the same instruction.
template <int kHalves>
OCTAVO_SKINNY_MAP int64_t skinny_row(int tile, int half, int g, int out_features, bool gated) {
  const int64_t last = out_features - 1;  // rows past the end repeat it and are not stored
  if (!gated) {
    const int64_t row = int64_t{tile} * (8 * kHalves) + 8 * half + g;
    return row < last ? row : last;
  }
  const int64_t row = int64_t{tile} * (4 * kHalves) + half / 2 * 8 + g;
  return (row < last ? row : last) + (half % 2) * int64_t{out_features};
}

// float32 sums of the warps: [kSkinnyWarps][8 * kHalves][8 * kTokenTiles + 1]
template <int kHalves, int kTokenTiles>
constexpr size_t skinny_shared_bytes() {
  return size_t{kSkinnyStages} * kStageCopies * kSkinnyThreads * 16 +
         size_t{kSkinnyWarps} * (8 * kHalves) * (8 * kTokenTiles + 1) * sizeof(float);
}

template <typename T>
__device__ __forceinline__ float skinny_read(const void* data, int64_t index) {
  return to_float(static_cast<const T*>(data)[index]);
}

// What is added to an element's sums: read before they are there.
struct SkinnyAddends {
  float bias = 0.0f, up_bias = 0.0f, residual = 0.0f;
};

__device__ __forceinline__ void read_biases(const SkinnyParams& p, int64_t column,
                                            SkinnyAddends& out) {
  if (p.bias == nullptr) return;
  out.bias = p.bias[column];
  if (p.gated) out.up_bias = p.bias[p.out_features + column];
}

template <typename T>
__device__ __forceinline__ void read_residual(const SkinnyParams& p, int token, int64_t column,
                                              SkinnyAddends& out) {
  if (p.residual == nullptr) return;
  const int64_t source = token * p.residual_stride + column;
  out.residual =
      p.float_out ? skinny_read<float>(p.residual, source) : skinny_read<T>(p.residual, source);
}

template <typename T>
__device__ __forceinline__ void skinny_finish(const SkinnyParams& p, int token, int64_t column,
                                              const SkinnyAddends& addends, float sum, float up) {
  sum = activate(sum + addends.bias, p.activation);
  if (p.gated) sum *= up + addends.up_bias;
  sum += addends.residual;
  const int64_t place = token * p.out_stride + column;
  if (p.float_out) {
    static_cast<float*>(p.out)[place] = sum;
  } else {
    static_cast<T*>(p.out)[place] = from_float<T>(sum);
  }
}

// The compiler must not compute an address of global memory anew in every turn of a loop.
template <typename T>
__device__ __forceinline__ void keep_in_register(const T*& address) {
  asm volatile("" : "+l"(address));
  __builtin_assume(__isGlobal(address));
}

// One warp's way through its chunks: the copies of its weights, stage by stage.
template <typename T, int kHalves>
struct SkinnyCopies {
  static constexpr int kChunks = kStageCopies / kHalves;

  const T* rows[kHalves];
  uint32_t ring;        // shared memory: [stages][copies][threads] of 16 bytes, from this thread's
  int in, piece, warp;  // piece: the first element of k of this thread in a chunk

  __device__ __forceinline__ SkinnyCopies(const SkinnyParams& p, uint32_t shared) {
    const int lane = threadIdx.x % 32;
    in = p.in;
    piece = 8 * (lane % 4);
    warp = threadIdx.x / 32;
    ring = shared + threadIdx.x * 16;
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      const int64_t row = skinny_row<kHalves>(blockIdx.x, half, lane / 4, p.out_features, p.gated);
      rows[half] = static_cast<const T*>(p.weight) + row * in;
      keep_in_register(rows[half]);
    }
  }

  // Copies stage `stage` into slot `stage % kSkinnyStages`; what lies past the end of k becomes
  // zeros.
  __device__ __forceinline__ void fetch(int stage) const {
    const uint32_t slot = ring + stage % kSkinnyStages * (kStageCopies * kSkinnyThreads * 16);
#pragma unroll
    for (int u = 0; u < kChunks; ++u) {
      const int k = skinny_chunk<kHalves>(stage, warp, u) * kChunk + piece;
      const bool inside = k < in;
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        copy_async_16(slot + (u * kHalves + half) * (kSkinnyThreads * 16),
                      rows[half] + (inside ? k : 0), inside ? 16 : 0);
      }
    }
  }
};

// 16 bytes where `inside`, else zeros; without a branch.
__device__ __forceinline__ uint4 read_now(const void* source, bool inside) {
  uint4 out = make_uint4(0, 0, 0, 0);
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %5, 0;\n"
      "@p ld.global.v4.u32 {%0, %1, %2, %3}, [%4];}"
      : "+r"(out.x), "+r"(out.y), "+r"(out.z), "+r"(out.w)
      : "l"(__cvta_generic_to_global(source)), "r"(static_cast<int>(inside))
      : "memory");
  return out;
}

// One warp's way through its chunks: this thread's pieces of the tokens' rows.
template <typename T, int kHalves, int kTokenTiles>
struct SkinnyTokens {
  static constexpr int kChunks = kStageCopies / kHalves;

  const T* rows[kTokenTiles];
  int end[kTokenTiles];  // tokens past the last are zeros
  int piece, warp;

  __device__ __forceinline__ explicit SkinnyTokens(const SkinnyParams& p) {
    const int group = threadIdx.x % 32 / 4;
    piece = 8 * (threadIdx.x % 4);
    warp = threadIdx.x / 32;
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
      const bool there = 8 * n + group < p.tokens;
      rows[n] = static_cast<const T*>(p.x) + (there ? (8 * n + group) * p.x_stride : 0);
      end[n] = there ? p.in : 0;
      keep_in_register(rows[n]);
    }
  }

  // Past the last stage all is zeros, and nothing is read.
  __device__ __forceinline__ void read(int stage, uint4 (&out)[kChunks][kTokenTiles]) const {
#pragma unroll
    for (int u = 0; u < kChunks; ++u) {
      const int k = skinny_chunk<kHalves>(stage, warp, u) * kChunk + piece;
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) {
        out[u][n] = read_now(rows[n] + k, k < end[n]);
      }
    }
  }
};

// Adds the products of one chunk. `weights` is this thread's [kHalves] pieces, x its [kTokenTiles].
template <typename T, int kHalves, int kTokenTiles>
__device__ __forceinline__ void skinny_multiply(const uint4 (&weights)[kHalves],
                                                const uint4 (&x)[kTokenTiles],
                                                float (&sums)[(kHalves + 1) / 2][kTokenTiles][4]) {
#pragma unroll
  for (int m = 0; m < (kHalves + 1) / 2; ++m) {
    const uint4 low = weights[2 * m];
    const uint4 high = kHalves == 1 ? make_uint4(0, 0, 0, 0) : weights[(2 * m + 1) % kHalves];
    const uint32_t first[4] = {low.x, high.x, low.y, high.y};
    const uint32_t second[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
      mma_16x8x16<T>(sums[m][n], first, x[n].x, x[n].y);
      mma_16x8x16<T>(sums[m][n], second, x[n].z, x[n].w);
    }
  }
}

// Puts a warp's sums where the block adds them: sums[m][n][i] is row 16 m + 8 (i / 2) + lane / 4 of
// the tile, token 8 n + 2 (lane % 4) + i % 2.
template <int kHalves, int kTokenTiles>
__device__ __forceinline__ void skinny_share(const float (&sums)[(kHalves + 1) / 2][kTokenTiles][4],
                                             float* shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  constexpr int kStride = 8 * kTokenTiles + 1;
  float* own = shared + warp * (8 * kHalves * kStride);
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
      float* at = own + (8 * half + lane / 4) * kStride + 8 * n + 2 * (lane % 4);
      at[0] = sums[half / 2][n][2 * (half % 2)];
      at[1] = sums[half / 2][n][2 * (half % 2) + 1];
    }
  }
}

// The outputs of a tile in the order in which threads make them.
struct SkinnyOutput {
  int token, inside;  // inside: the column within the tile
  int64_t column;
};
template <int kHalves>
__device__ __forceinline__ SkinnyOutput skinny_output(const SkinnyParams& p, int i) {
  constexpr int kColumns = 8 * kHalves;  // half of them with gates: divisions by constants are none
  const int token = p.gated ? i / (kColumns / 2) : i / kColumns;
  const int inside = p.gated ? i % (kColumns / 2) : i % kColumns;
  return {token, inside, int64_t{blockIdx.x} * (p.gated ? kColumns / 2 : kColumns) + inside};
}

// Adds the warps' sums in their order and stores the tile. `first` is of this thread's first
// output.
template <typename T, int kHalves, int kTokenTiles>
__device__ __forceinline__ void skinny_store(const SkinnyParams& p, const float* shared,
                                             SkinnyAddends first) {
  constexpr int kStride = 8 * kTokenTiles + 1, kTile = 8 * kHalves * kStride;
  const int outputs = (p.gated ? 4 * kHalves : 8 * kHalves) * p.tokens;
  for (int i = threadIdx.x; i < outputs; i += kSkinnyThreads) {
    const SkinnyOutput o = skinny_output<kHalves>(p, i);
    if (o.column >= p.out_features) continue;
    if (i >= kSkinnyThreads) {
      first = SkinnyAddends();
      read_biases(p, o.column, first);
      read_residual<T>(p, o.token, o.column, first);
    }
    const int row = p.gated ? o.inside / 8 * 16 + o.inside % 8 : o.inside;
    const float* at = shared + row * kStride + o.token;
    float sum = 0.0f, up = 0.0f;
#pragma unroll
    for (int warp = 0; warp < kSkinnyWarps; ++warp) sum += at[warp * kTile];
    if (p.gated) {
#pragma unroll
      for (int warp = 0; warp < kSkinnyWarps; ++warp) up += at[warp * kTile + 8 * kStride];
    }
    skinny_finish<T>(p, o.token, o.column, first, sum, up);
  }
}

// This block's share of the next weight on its way to the L2 cache.
__device__ __forceinline__ void prefetch_next(const SkinnyParams& p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr int64_t kPiece = 4096;  // bytes
  if (p.next == nullptr) return;
  const int64_t step = int64_t{gridDim.x} * kSkinnyThreads * kPiece;
  for (int64_t at = (int64_t{threadIdx.x} * gridDim.x + blockIdx.x) * kPiece; at < p.next_bytes;
       at += step) {
    const auto bytes = static_cast<uint32_t>(min(kPiece, p.next_bytes - at));
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(
                     __cvta_generic_to_global(static_cast<const char*>(p.next) + at)),
                 "r"(bytes)
                 : "memory");
  }
#endif
}

// Blocks of a multiprocessor: what registers and shared memory are planned for.
constexpr int skinny_residents(int halves, int token_tiles) {
  return halves * token_tiles < 8 ? 3 : 2;
}

// Launched with kSkinnyThreads threads a block, a block a tile, and skinny_shared_bytes() bytes.
template <typename T, int kHalves, int kTokenTiles>
__global__ void __launch_bounds__(kSkinnyThreads, skinny_residents(kHalves, kTokenTiles))
    skinny_kernel(const __grid_constant__ SkinnyParams p) {
  extern __shared__ __align__(16) unsigned char shared[];
  using Copies = SkinnyCopies<T, kHalves>;
  using Tokens = SkinnyTokens<T, kHalves, kTokenTiles>;
  const Copies copies(p, shared_address(shared));
  const int stages = skinny_runs(p.in) * kHalves;
#pragma unroll
  for (int stage = 0; stage < kSkinnyStages - 1; ++stage) {
    if (stage < stages) copies.fetch(stage);
    commit_copies();
  }
  let_next_kernel_begin();
  const Tokens tokens(p);
  const SkinnyOutput output = skinny_output<kHalves>(p, threadIdx.x);
  const bool has_output = output.token < p.tokens && output.column < p.out_features;
  SkinnyAddends addends;
  if (has_output) read_biases(p, output.column, addends);
  wait_for_earlier_kernels();  // weights and biases are nobody's output; all else may be

  // Pieces of x are a stage ahead: what was written just now is in the L2 cache at best.
  uint4 ahead[Copies::kChunks][kTokenTiles];
  tokens.read(0, ahead);
  if (has_output) read_residual<T>(p, output.token, output.column, addends);
  float sums[(kHalves + 1) / 2][kTokenTiles][4] = {};
  // Why not unrolled: the compiler would move a round's reads to where the next one needs them.
#pragma unroll 1
  for (int stage = 0; stage < stages; ++stage) {
    uint4 x[Copies::kChunks][kTokenTiles];
#pragma unroll
    for (int u = 0; u < Copies::kChunks; ++u) {
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) x[u][n] = ahead[u][n];
    }
    tokens.read(stage + 1, ahead);
    wait_copies<kSkinnyStages - 2>();
    const auto* slot = reinterpret_cast<const uint4*>(shared) +
                       stage % kSkinnyStages * (kStageCopies * kSkinnyThreads) + threadIdx.x;
#pragma unroll
    for (int u = 0; u < Copies::kChunks; ++u) {
      uint4 weights[kHalves];
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        weights[half] = slot[(u * kHalves + half) * kSkinnyThreads];
      }
      skinny_multiply<T, kHalves, kTokenTiles>(weights, x[u], sums);
    }
    if (stage + kSkinnyStages - 1 < stages) copies.fetch(stage + kSkinnyStages - 1);
    commit_copies();
  }
  prefetch_next(p);
  auto* partial =
      reinterpret_cast<float*>(shared + kSkinnyStages * kStageCopies * kSkinnyThreads * 16);
  skinny_share<kHalves, kTokenTiles>(sums, partial);
  __syncthreads();
  skinny_store<T, kHalves, kTokenTiles>(p, partial, addends);
}

}  // namespace octavo::cuda
