// From a row of logits to a token, as backend/edit_logits.cc and backend/sample_row.cc define it.
// Every function is called by all threads of the group with the same arguments.
#pragma once

#include <cstdint>

#include "kernels/sample_group.cuh"
#include "launch/sample.h"

namespace octavo::cuda {

struct Row {
  float* logits;  // [vocab]
  int32_t vocab;
};

// Whether a thread's block has this id of the row in its slices.
__device__ __forceinline__ bool owns(const Group& group, const Row& row, int32_t id) {
  return id >= 0 && id < row.vocab && id / kSlice % group.size() == group.rank();
}

template <typename T>
__device__ __forceinline__ const T* list_at(const void* upload, uint32_t place) {
  return reinterpret_cast<const T*>(static_cast<const unsigned char*>(upload) + place);
}

__device__ inline void forbid(const Group& group, const Row& row, const int32_t* ids, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kSampleThreads) {
    if (owns(group, row, ids[i])) row.logits[ids[i]] = -infinity();
  }
}

__device__ inline void penalise(const Group& group, const Row& row, const PackedRow& how,
                                const PackedCount* counts) {
  for (int i = static_cast<int>(threadIdx.x); i < how.num_counts; i += kSampleThreads) {
    const PackedCount count = counts[i];
    if (!owns(group, row, count.token_id)) continue;
    float logit = row.logits[count.token_id];
    if (count.counts != 0) {
      logit = logit > 0 ? __fdiv_rn(logit, how.repetition_penalty)
                        : __fmul_rn(logit, how.repetition_penalty);
    }
    if (const uint32_t in_output = count.counts >> 1; in_output > 0) {
      const float times = static_cast<float>(static_cast<int32_t>(in_output));
      logit = __fsub_rn(logit, __fmul_rn(how.frequency_penalty, times));
      logit = __fsub_rn(logit, how.presence_penalty);
    }
    row.logits[count.token_id] = logit;
  }
}

// Each block edits its own slices. Ids of the bias, and those of the counts, occur once.
__noinline__ __device__ inline void edit_row(const Group& group, Row row, const PackedRow& how,
                                             const void* upload) {
  const auto* bias = list_at<PackedBias>(upload, how.bias_at);
  for (int i = static_cast<int>(threadIdx.x); i < how.num_bias; i += kSampleThreads) {
    if (owns(group, row, bias[i].token_id)) row.logits[bias[i].token_id] += bias[i].bias;
  }
  __syncthreads();
  if (how.mask_words > 0) {
    const auto* mask = list_at<uint32_t>(upload, how.mask_at);
    group.for_each(row.logits, row.vocab, [&](float, int32_t id) {
      if ((mask[id / 32] >> (id % 32) & 1u) == 0) row.logits[id] = -infinity();
    });
  }
  __syncthreads();
  forbid(group, row, list_at<int32_t>(upload, how.banned_at), how.num_banned);
  __syncthreads();
  penalise(group, row, how, list_at<PackedCount>(upload, how.counts_at));
  __syncthreads();
  forbid(group, row, list_at<int32_t>(upload, how.bad_at), how.num_bad);
  __syncthreads();
}

// The largest logit and its lowest id; a NaN's key is the largest.
__noinline__ __device__ inline uint64_t find_max(Group& group, Row row, uint32_t& thread_key) {
  uint64_t best = 0;
  group.for_each(row.logits, row.vocab, [&](float logit, int32_t id) {
    const uint64_t found = ranked(order_key(logit), id);
    best = found > best ? found : best;
  });
  thread_key = key_of(best);
  return group.max(best);
}

__noinline__ __device__ inline bool has_nan(Group& group, Row row, float* copy) {
  uint64_t found = 0;
  group.for_each(row.logits, row.vocab, [&](float logit, int32_t id) {
    found |= logit != logit ? 1u : 0u;
    if (copy != nullptr) copy[id] = logit;
  });
  return group.max(found) != 0;
}

// The `count`-th largest key of a row's keys. `thread_key` is the largest of the thread's: the
// count-th largest of these is a bound from below, so that few keys have to be counted.
template <typename Visit>
__device__ Selection select_largest(Group& group, const Visit& visit, uint32_t thread_key,
                                    int32_t count) {
  const auto visit_threads = [&](auto take) {
    if (thread_key != 0) take(thread_key);
  };
  const Selection bound = select<Amount::kCount>(group, visit_threads, count, 0, 1);
  return select<Amount::kCount>(group, visit, count, bound.found ? bound.key : 0);
}

__noinline__ __device__ inline float kth_largest(Group& group, Row row, uint32_t thread_key,
                                                 int32_t k) {
  const auto visit = [&](auto take) {
    group.for_each(row.logits, row.vocab, [&](float logit, int32_t) { take(order_key(logit)); });
  };
  return float_of_key(select_largest(group, visit, thread_key, k).key);
}

// The id up to which (and with it) `count` ids are `matching`: at least that many are.
template <typename Matching>
__device__ int32_t id_of_count(Group& group, const Row& row, const Matching& matching,
                               uint64_t count) {
  int32_t low = 0, high = row.vocab - 1;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    uint64_t found = 0;
    group.for_each(row.logits, row.vocab, [&](float logit, int32_t id) {
      if (id <= middle && matching(logit, id)) ++found;
    });
    if (group.sum(found) >= count) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// What top_p keeps: weights above `bits`, and the first `count` ids of that weight.
struct Cut {
  bool certain = false;
  uint32_t bits = 0;
  uint64_t count = 0;
  bool all = true;  // ids of that weight
};

// sample_row.cc adds weights in an order that is slow here. Its result follows from sums in any
// order, unless a sum comes closer to the target than both ways can be apart.
__noinline__ __device__ inline Cut find_cut(Group& group, Row row, Filter filter, float top_p) {
  double total = 0;
  group.for_each(row.logits, row.vocab,
                 [&](float logit, int32_t) { total += static_cast<double>(filter.uncut(logit)); });
  total = group.sum(total);
  const double target = static_cast<double>(top_p) * (1.0 - 0x1.0p-24) * total;
  // All weights below this one together do not make up what top_p leaves out.
  const float lowest = static_cast<float>((total - target) / (2.0 * row.vocab));
  const auto visit = [&](auto take) {
    group.for_each(row.logits, row.vocab, [&](float logit, int32_t) {
      const float weight = filter.uncut(logit);
      if (weight > 0.0f) take(__float_as_uint(weight));
    });
  };
  const Selection found =
      select<Amount::kWeight>(group, visit, target, __float_as_uint(fmaxf(lowest, 0.0f)));
  Cut cut;
  if (!found.found) return cut;
  const double weight = static_cast<double>(__uint_as_float(found.key));
  const double present = rint(found.amount / weight);
  const double needed = fmin(fmax(ceil((target - found.above) / weight), 1.0), present);
  const double slack = (row.vocab + 65536.0) * 0x1.0p-52 * total;
  cut.bits = found.key;
  cut.count = static_cast<uint64_t>(needed);
  cut.all = needed == present;
  cut.certain = found.above + (needed - 1.0) * weight < target - slack &&
                found.above + needed * weight >= target + slack;
  return cut;
}

// The sums of the 128 buckets of one exponent, each of them exact; in every block's shared memory.
__device__ inline const double* bucket_sums(Group& group, const Row& row, const Filter& filter,
                                            uint32_t exponent) {
  SampleShared& shared = group.shared();
  const int turn = group.next_bins();
  for (int i = static_cast<int>(threadIdx.x); i < 128; i += kSampleThreads) {
    shared.low[turn][i] = 0;
    shared.high[turn][i] = 0;
  }
  __syncthreads();
  group.for_each(row.logits, row.vocab, [&](float logit, int32_t) {
    const uint32_t bits = __float_as_uint(filter.uncut(logit));
    if (bits >> 23 == exponent) count_key<Amount::kWeight>(turn, bits, bits >> 16 & 0x7fu);
  });
  group.sync();
  if (threadIdx.x < 128) {
    shared.chunks[threadIdx.x] =
        bin_amount<Amount::kWeight>(group, turn, static_cast<int>(threadIdx.x), exponent << 23);
  }
  __syncthreads();
  return shared.chunks;
}

// The same in the order of sample_row.cc, to the bit, and slowly: bucket by bucket, and then weight
// by weight.
__noinline__ __device__ inline Cut find_cut_in_order(Group& group, Row row, Filter filter,
                                                     float top_p) {
  constexpr uint32_t kMostExponent = 127, kBuckets = 128;
  double total = 0;
  for (uint32_t exponent = 1; exponent <= kMostExponent; ++exponent) {
    const double* sums = bucket_sums(group, row, filter, exponent);
    for (uint32_t i = 0; i < kBuckets; ++i) total += sums[i];
    __syncthreads();
  }
  const double target = static_cast<double>(top_p) * (1.0 - 0x1.0p-24) * total;
  double sum = 0;
  uint32_t bucket = 0;
  for (uint32_t exponent = kMostExponent; exponent >= 1 && bucket == 0; --exponent) {
    const double* sums = bucket_sums(group, row, filter, exponent);
    for (uint32_t i = kBuckets; i-- > 0;) {
      if (sums[i] != 0.0 && !(sum + sums[i] < target)) {
        bucket = exponent << 7 | i;
        break;
      }
      sum += sums[i];
    }
    __syncthreads();
  }
  Cut cut;
  cut.certain = true;
  group.sync();                 // the sums have been read
  if (bucket == 0) return cut;  // not reached: all are kept
  cut.bits = bucket << 16;
  uint32_t below = (bucket + 1) << 16;  // weights of the bucket from here on have been added
  while (true) {
    uint64_t next = 0;
    group.for_each(row.logits, row.vocab, [&](float logit, int32_t) {
      const uint32_t bits = __float_as_uint(filter.uncut(logit));
      if (bits >> 16 == bucket && bits < below && bits > next) next = bits;
    });
    below = static_cast<uint32_t>(group.max(next));
    if (below == 0) return cut;  // the bucket ends before the target: all of it is kept
    uint64_t present = 0;
    group.for_each(row.logits, row.vocab, [&](float logit, int32_t) {
      present += __float_as_uint(filter.uncut(logit)) == below ? 1u : 0u;
    });
    present = group.sum(present);
    for (uint64_t i = 1; i <= present; ++i) {
      sum += static_cast<double>(__uint_as_float(below));
      if (sum < target) continue;
      cut.bits = below;
      cut.count = i;
      cut.all = i == present;
      return cut;
    }
  }
}

__device__ inline void cut_top_p(Group& group, const Row& row, float top_p, Filter& filter) {
  Cut cut = find_cut(group, row, filter, top_p);
  if (!cut.certain) cut = find_cut_in_order(group, row, filter, top_p);
  if (!cut.all) {
    const auto matching = [&](float logit, int32_t) {
      return __float_as_uint(filter.uncut(logit)) == cut.bits;
    };
    filter.cut_id = id_of_count(group, row, matching, cut.count);
  }
  filter.cut_bits = cut.bits;
}

// The sums of chunks of ids, in the order of sample_row.cc, each to its block's `chunks`.
__noinline__ __device__ inline void sum_chunks(Group& group, Row row, Filter filter) {
  SampleShared& shared = group.shared();
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kSumLanes, chunk = thread / kSumLanes;
  const int32_t tile = group.size() * kSlice;
  for (int32_t slice = group.rank() * kSlice; slice < row.vocab; slice += tile) {
    const int32_t index = slice / kSumChunk + chunk;
    double sum = 0;
    Group::for_each_of_lane(row.logits, row.vocab, index, lane, [&](float logit, int32_t id) {
      sum += static_cast<double>(filter.weight(logit, id));
    });
    sum += __shfl_xor_sync(0xffffffffu, sum, 4);
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (lane == 0 && index * kSumChunk < row.vocab) shared.chunks[index] = sum;
  }
  group.sync();
}

// By the first block: the sums of chunks become sums up to and with the chunk, one after the other.
__device__ inline void accumulate_chunks(const Group& group, int chunks) {
  SampleShared& shared = block_shared();
  for (int i = static_cast<int>(threadIdx.x); i < chunks; i += kSampleThreads) {
    const int rank = i / kSliceChunks % group.size();
    if (rank != 0) shared.chunks[i] = *group.at(rank, &shared.chunks[i]);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double sum = 0;
    int last = -1;
#pragma unroll 8
    for (int i = 0; i < chunks; ++i) {
      const double chunk = shared.chunks[i];
      if (chunk != 0.0) last = i;
      sum += chunk;
      shared.chunks[i] = sum;
    }
    shared.total = sum;
    shared.last_chunk = last;
    shared.first_chunk = ~0u;
  }
  __syncthreads();
}

// By the first block: the first id whose cumulative weight exceeds `uniform` of the total.
__noinline__ __device__ inline void invert_distribution(const Group& group, Row row, Filter filter,
                                                        double uniform) {
  SampleShared& shared = block_shared();
  const int chunks = (row.vocab + kSumChunk - 1) / kSumChunk;
  accumulate_chunks(group, chunks);
  const double target = uniform * shared.total;
  for (int i = static_cast<int>(threadIdx.x); i < chunks; i += kSampleThreads) {
    if (!(shared.chunks[i] > target)) continue;
    atomicMin(&shared.first_chunk, static_cast<unsigned>(i));
    break;
  }
  __syncthreads();
  const int chosen =
      shared.first_chunk != ~0u ? static_cast<int>(shared.first_chunk) : shared.last_chunk;
  const int32_t first = chosen * kSumChunk;
  if (chosen >= 0 && threadIdx.x < kSumChunk) {
    const int32_t id = first + static_cast<int32_t>(threadIdx.x);
    shared.weights[threadIdx.x] = id < row.vocab ? filter.weight(row.logits[id], id) : 0.0f;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  int32_t token = kNoId;
  double sum = chosen > 0 ? shared.chunks[chosen - 1] : 0.0;
  for (int i = 0; chosen >= 0 && i < kSumChunk; ++i) {
    if (shared.weights[i] == 0.0f) continue;
    token = first + i;
    sum += static_cast<double>(shared.weights[i]);
    if (sum > target) break;
  }
  shared.token = token;
}

// The token of a row whose edits are done, and the filter that it was drawn with.
__device__ inline int32_t draw(Group& group, const Row& row, const PackedRow& how, Filter& filter) {
  uint32_t thread_key = 0;
  const uint64_t best = find_max(group, row, thread_key);
  if (key_of(best) == kNaNKey || key_of(best) == kLowestKey) return kNoId;
  if (how.temperature <= 0.0f) return id_of(best);
  filter.max = float_of_key(key_of(best));
  filter.temperature = how.temperature;
  filter.min_p = how.min_p;
  filter.threshold = how.top_k > 0 && how.top_k < row.vocab
                         ? kth_largest(group, row, thread_key, how.top_k)
                         : -infinity();
  if (how.top_p < 1.0f) cut_top_p(group, row, how.top_p, filter);
  sum_chunks(group, row, filter);
  if (group.rank() == 0) invert_distribution(group, row, filter, how.uniform);
  group.sync();
  return *group.at(0, &group.shared().token);
}

}  // namespace octavo::cuda
