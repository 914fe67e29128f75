// The kernels of sampling: greedy rows, by as many blocks as help; and rows of any kind, each by a
// group of blocks.
#pragma once

#include <cstdint>

#include "kernels/sample_draw.cuh"
#include "kernels/sample_logprobs.cuh"
#include "launch/sample.h"

namespace octavo::cuda {

// ---- Rows of any kind ----

__device__ inline int32_t choose_token(Group& group, const Row& row, const PackedRow& how,
                                       const void* upload, float* copy, Filter& filter) {
  if (how.given >= 0) return has_nan(group, row, nullptr) ? kNoId : how.given;
  if (how.has_edits != 0) {
    if (has_nan(group, row, copy)) return kNoId;
    edit_row(group, row, how, upload);
  }
  return draw(group, row, how, filter);
}

__device__ inline void sample_row(Group& group, const SampleRows& args, const PackedRow& how) {
  const Row row{args.logits + how.row * args.stride, static_cast<int32_t>(args.vocab)};
  float* copy = how.copy < 0 ? nullptr : args.copies + how.copy * args.vocab;
  Filter filter{};
  const int32_t token = choose_token(group, row, how, args.upload, copy, filter);
  if (group.first_thread()) args.out[how.row] = token;
  if (how.wanted != 0) {
    auto* result =
        reinterpret_cast<PackedResult*>(static_cast<unsigned char*>(args.results) + how.result_at);
    if (token >= 0) {
      const bool filtered = how.processed != 0 && how.given < 0 && how.temperature > 0.0f;
      const Values values{copy != nullptr ? copy : row.logits, row.vocab, filtered, filter};
      write_logprobs(group, values, how, args.upload, token, result);
    } else if (group.first_thread()) {
      result->token = kNoId;
    }
  }
  group.sync();  // no block ends while others read its shared memory
}

// Clusters of `size` blocks, or blocks.
__global__ void __launch_bounds__(kSampleThreads, 2) sample_rows_kernel(SampleRows args, int size) {
  Group group(size, static_cast<int>(blockIdx.x) % size);
  const auto* rows = static_cast<const PackedRow*>(args.upload);
  sample_row(group, args, rows[args.first + blockIdx.x / static_cast<unsigned>(size)]);
}

// ---- Greedy rows ----

inline constexpr int kArgmaxThreads = 256;
inline constexpr int kArgmaxAhead = 8;  // loads of a thread in flight

__device__ __forceinline__ uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

__device__ inline uint64_t block_largest(uint64_t value) {
  __shared__ uint64_t parts[kArgmaxThreads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value = larger(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kArgmaxThreads / 32; ++i) value = larger(value, parts[i]);
  return value;
}

// `splits` blocks a row. The last of a row that arrives has all blocks' results, and leaves the
// scratch as it was.
__global__ void __launch_bounds__(kArgmaxThreads) argmax_kernel(Argmax args, int splits) {
  const int64_t row = blockIdx.x / static_cast<unsigned>(splits);
  const int split = static_cast<int>(blockIdx.x % static_cast<unsigned>(splits));
  const float* logits = args.logits + row * args.stride;
  const auto vocab = static_cast<int32_t>(args.vocab);
  const int64_t step = int64_t{splits} * kArgmaxThreads * kArgmaxAhead;
  uint64_t best = 0;
  for (int64_t begin = int64_t{split} * kArgmaxThreads * kArgmaxAhead; begin < vocab;
       begin += step) {
    const int64_t first = begin + threadIdx.x;
    float values[kArgmaxAhead];
#pragma unroll
    for (int i = 0; i < kArgmaxAhead; ++i) {
      const int64_t id = first + i * kArgmaxThreads;
      values[i] = id < vocab ? logits[id] : -infinity();
    }
#pragma unroll
    for (int i = 0; i < kArgmaxAhead; ++i) {
      // Past the end lies -infinity, which no row chooses.
      best = larger(best,
                    ranked(order_key(values[i]), static_cast<int32_t>(first + i * kArgmaxThreads)));
    }
  }
  best = block_largest(best);
  if (threadIdx.x != 0) return;
  if (splits > 1) {
    atomicMax(reinterpret_cast<unsigned long long*>(&args.best[row]),
              static_cast<unsigned long long>(best));
    __threadfence();
    if (atomicAdd(&args.done[row], 1u) + 1 != static_cast<unsigned>(splits)) return;
    __threadfence();
    best = atomicExch(reinterpret_cast<unsigned long long*>(&args.best[row]), 0ull);
    args.done[row] = 0;
  }
  const uint32_t key = key_of(best);
  args.out[row] = key == kNaNKey || key <= kLowestKey ? kNoId : id_of(best);
}

}  // namespace octavo::cuda
