// The blocks that share a row of logits: a cluster of Hopper, which reads one another's shared
// memory, or a single block. What they compute together: reductions, selection by radix.
//
// A row is cut into tiles of `size` slices; of each tile, a block has the slice of its rank. A
// slice is as many chunks of ids as sums are made of (sample_row.cc) as give each thread one lane.
#pragma once

#include <cstdint>

#include "kernels/sample_math.cuh"

namespace octavo::cuda {

inline constexpr int kSampleThreads = 512;
inline constexpr int kSampleWarps = kSampleThreads / 32;
inline constexpr int kPerThread = 32;                       // elements of a slice
inline constexpr int kSlice = kSampleThreads * kPerThread;  // elements
inline constexpr int kSumLanes = 8;                         // of a sum
inline constexpr int kSumChunk = kSumLanes * kPerThread;    // ids: 256
inline constexpr int kSliceChunks = kSlice / kSumChunk;     // 64
inline constexpr int kMostBlocks = 8;                       // of a group
inline constexpr int64_t kMostVocab = int64_t{1} << 19;     // bounds the integer sums
inline constexpr int kMostChunks = static_cast<int>(kMostVocab) / kSumChunk;
inline constexpr int kMostListed = 1024;  // best ids of a row
inline constexpr int kBins = 2048;        // of a level of selection
inline constexpr int kBinsPerThread = kBins / kSampleThreads;

// Shared memory of one block, which alone writes it. Others of the group read what is marked.
struct SampleShared {
  uint32_t low[2][kBins];   // counts, or sums of mantissas' lower 12 bits; taken in turn; read
  uint32_t high[2][kBins];  // and of their upper 12 bits
  uint64_t reduced[2];      // a block's part of a reduction; taken in turn; read
  uint64_t warp_parts[kSampleWarps];
  double scan_parts[kSampleWarps];
  unsigned winner;  // the thread whose bins hold the target
  uint32_t found_bin;
  double found_above, found_amount;

  union {
    double chunks[kMostChunks];  // sums, read; then the first block's sums up to and with the chunk
    struct {                     // of a slice's sums of exponentials, by lane
      double lane_parts[kSampleWarps][kSumLanes];
      SumRun runs[kSumLanes][kSliceChunks];
      SumRun warp_runs[kSumLanes][kSampleWarps];
      int16_t run_exponents[kSumLanes][kSliceChunks];  // -1: none
      int16_t warp_exponents[kSumLanes][kSampleWarps];
    } sums;
  };
  double lane_totals[2][kSumLanes];  // of a tile's slice; taken in turn; read
  double lane_sums[kSumLanes];       // up to and with the slice; read
  uint64_t list[kMostListed];        // of the best, read; then all blocks' in order: the first's
  uint32_t listed;                   // read
  float weights[kSumChunk];
  unsigned first_chunk;
  int32_t last_chunk;
  double total;
  int32_t token;  // read
};

__device__ __forceinline__ SampleShared& block_shared() {
  extern __shared__ __align__(16) unsigned char sample_shared_bytes[];
  return *reinterpret_cast<SampleShared*>(sample_shared_bytes);
}

class Group {
 public:
  __device__ Group(int size, int rank) : size_(size), rank_(rank) {}

  __device__ int size() const { return size_; }
  __device__ int rank() const { return rank_; }
  __device__ static SampleShared& shared() { return block_shared(); }
  __device__ bool first_thread() const { return rank_ == 0 && threadIdx.x == 0; }

  // Waits for all threads of all blocks; what they wrote is visible afterwards.
  __device__ __forceinline__ void sync() const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if (size_ > 1) {
      __cluster_barrier_arrive();
      __cluster_barrier_wait();
      return;
    }
#endif
    __syncthreads();
  }

  // The same place in the shared memory of the block `rank`, for reading.
  template <typename T>
  __device__ __forceinline__ const T* at(int rank, const T* mine) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if (size_ > 1) {
      return static_cast<T*>(__cluster_map_shared_rank(mine, static_cast<unsigned>(rank)));
    }
#endif
    return mine;
  }

  // Of every thread's value, for every thread; of the blocks' parts in the order of ranks. An
  // 8-byte type.
  template <typename T, typename Op>
  __device__ T reduce(T value, Op op) {
    static_assert(sizeof(T) == 8);
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      value = op(value, __shfl_xor_sync(0xffffffffu, value, offset));
    }
    const int lane = static_cast<int>(threadIdx.x) % 32;
    SampleShared& shared = block_shared();
    T* parts = reinterpret_cast<T*>(shared.warp_parts);
    if (lane == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    T* mine = reinterpret_cast<T*>(&shared.reduced[turn_]);
    if (threadIdx.x < 32) {
      value = parts[lane % kSampleWarps];
#pragma unroll
      for (int offset = kSampleWarps / 2; offset > 0; offset /= 2) {
        value = op(value, __shfl_xor_sync(0xffffffffu, value, offset));
      }
      if (lane == 0) *mine = value;
    }
    sync();
    value = *at(0, mine);
    for (int rank = 1; rank < size_; ++rank) value = op(value, *at(rank, mine));
    turn_ ^= 1;
    return value;
  }
  __noinline__ __device__ uint64_t max(uint64_t value) {
    return reduce(value, [](uint64_t a, uint64_t b) { return a > b ? a : b; });
  }
  __noinline__ __device__ uint64_t sum(uint64_t value) {
    return reduce(value, [](uint64_t a, uint64_t b) { return a + b; });
  }
  __noinline__ __device__ double sum(double value) {
    return reduce(value, [](double a, double b) { return a + b; });
  }

  // take(element, id) for all of the thread's elements of row [vocab].
  template <typename Take>
  __device__ __forceinline__ void for_each(const float* row, int32_t vocab,
                                           const Take& take) const {
    constexpr int kAhead = 4;  // loads in flight
    __builtin_assume(__isGlobal(row));
    const int32_t tile = size_ * kSlice;
    for (int32_t slice = rank_ * kSlice; slice < vocab; slice += tile) {
      for (int j = 0; j < kPerThread; j += kAhead) {
        const int32_t first = slice + j * kSampleThreads + static_cast<int32_t>(threadIdx.x);
        if (first >= vocab) break;
        float values[kAhead];
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
          const int32_t id = first + i * kSampleThreads;
          values[i] = id < vocab ? row[id] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
          const int32_t id = first + i * kSampleThreads;
          if (id < vocab) take(values[i], id);
        }
      }
    }
  }

  // take(element, id), in order, for one lane of a chunk of ids.
  template <typename Take>
  __device__ __forceinline__ static void for_each_of_lane(const float* row, int32_t vocab,
                                                          int32_t chunk, int lane,
                                                          const Take& take) {
    constexpr int kAhead = 4;
    __builtin_assume(__isGlobal(row));
    for (int j = 0; j < kPerThread; j += kAhead) {
      const int32_t first = chunk * kSumChunk + j * kSumLanes + lane;
      if (first >= vocab) break;
      float values[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int32_t id = first + i * kSumLanes;
        values[i] = id < vocab ? row[id] : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int32_t id = first + i * kSumLanes;
        if (id < vocab) take(values[i], id);
      }
    }
  }

  // 0, 1, 0, ...: for memory that is used by turns, so that one barrier a use is enough.
  __device__ int next_bins() { return bins_turn_ ^= 1; }

 private:
  int size_, rank_;
  int turn_ = 0, bins_turn_ = 0;
};

// Selection of the k-th largest key, or of the key where the sum of weights from the largest key on
// reaches a target: level by level of the keys' bits, each a histogram.
enum class Amount { kCount, kWeight };  // weight: a key is the bits of a float in (0, 1]

struct Selection {
  bool found = false;
  uint32_t key = 0;   // of the bits that were looked at, the others are 0
  double above = 0;   // the amount of larger keys
  double amount = 0;  // of this key
};

inline constexpr int kLevels = 3;
__device__ __forceinline__ int level_shift(int level) {
  return level == 0 ? 21 : level == 1 ? 10 : 0;
}
__device__ __forceinline__ int level_bits(int level) { return level == 2 ? 10 : 11; }

// A histogram's bin as an amount: counts, or mantissas of one exponent, whose sums are exact.
template <Amount kAmount>
__device__ double bin_amount(const Group& group, int turn, int bin, uint32_t key) {
  SampleShared& shared = group.shared();
  uint64_t low = 0, high = 0;
  for (int rank = 0; rank < group.size(); ++rank) {
    low += *group.at(rank, &shared.low[turn][bin]);
    if constexpr (kAmount == Amount::kWeight) high += *group.at(rank, &shared.high[turn][bin]);
  }
  if constexpr (kAmount == Amount::kCount) return static_cast<double>(low);
  const int exponent = static_cast<int>(key >> 23);
  return static_cast<double>(low + (high << 12)) * power_of_two(exponent - 150);
}

template <Amount kAmount>
__device__ __forceinline__ void count_key(int turn, uint32_t key, uint32_t bin) {
  SampleShared& shared = block_shared();
  if constexpr (kAmount == Amount::kCount) {
    atomicAdd(&shared.low[turn][bin], 1u);
  } else {
    const uint32_t mantissa = mantissa_of(key);
    atomicAdd(&shared.low[turn][bin], mantissa & 0xfffu);
    atomicAdd(&shared.high[turn][bin], mantissa >> 12);
  }
}

// The sum of `value` over the block's threads up to and with this one.
__device__ inline double block_scan(double value) {
  SampleShared& shared = block_shared();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const double before = __shfl_up_sync(0xffffffffu, value, offset);
    if (lane >= offset) value += before;
  }
  if (lane == 31) shared.scan_parts[warp] = value;
  __syncthreads();
  double before = 0;
  for (int i = 0; i < warp; ++i) before += shared.scan_parts[i];
  return before + value;
}

// Of the bins in descending order, the first whose amounts, from `above` on, reach the target.
template <Amount kAmount>
__noinline__ __device__ bool find_bin(Group& group, int turn, uint32_t prefix, int level,
                                      double target, double& above, double& amount, uint32_t& bin) {
  SampleShared& shared = group.shared();
  double amounts[kBinsPerThread], mine = 0;
  const int first = kBins - 1 - static_cast<int>(threadIdx.x) * kBinsPerThread;
  const int bits = level_bits(level), shift = level_shift(level);
#pragma unroll
  for (int i = 0; i < kBinsPerThread; ++i) {
    const uint32_t key = ((prefix << bits) | static_cast<uint32_t>(first - i)) << shift;
    amounts[i] = first - i < 1 << bits ? bin_amount<kAmount>(group, turn, first - i, key) : 0.0;
    mine += amounts[i];
  }
  if (threadIdx.x == 0) shared.winner = ~0u;
  const double end = above + block_scan(mine);
  if (mine > 0 && end >= target) atomicMin(&shared.winner, threadIdx.x);
  __syncthreads();
  if (shared.winner == threadIdx.x) {
    double sum = end - mine;
    for (int i = 0; i < kBinsPerThread; ++i) {
      if (amounts[i] == 0) continue;
      shared.found_bin = static_cast<uint32_t>(first - i);
      shared.found_above = sum;
      shared.found_amount = amounts[i];
      sum += amounts[i];
      if (sum >= target) break;
    }
  }
  __syncthreads();
  if (shared.winner == ~0u) return false;
  above = shared.found_above;
  amount = shared.found_amount;
  bin = shared.found_bin;
  return true;
}

// visit(take) calls take(key) for each of the thread's keys; keys below `lowest` do not count: they
// must not be what is looked for.
template <Amount kAmount, typename Visit>
__device__ Selection select(Group& group, const Visit& visit, double target, uint32_t lowest,
                            int levels = kLevels) {
  SampleShared& shared = group.shared();
  Selection result;
  uint32_t prefix = 0;
  for (int level = 0; level < levels; ++level) {
    const int bits = level_bits(level), shift = level_shift(level);
    const int turn = group.next_bins();
    for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kSampleThreads) {
      shared.low[turn][i] = 0;
      shared.high[turn][i] = 0;
    }
    __syncthreads();
    visit([&](uint32_t key) {
      if (key < lowest) return;
      if (level > 0 && key >> (shift + bits) != prefix) return;
      count_key<kAmount>(turn, key, (key >> shift) & ((1u << bits) - 1));
    });
    group.sync();
    uint32_t bin = 0;
    if (!find_bin<kAmount>(group, turn, prefix, level, target, result.above, result.amount, bin)) {
      return result;
    }
    prefix = prefix << bits | bin;
  }
  result.found = true;
  result.key = prefix << level_shift(levels - 1);
  return result;
}

}  // namespace octavo::cuda
