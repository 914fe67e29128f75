// The log-probabilities of a row, as backend/row_logprobs.cc defines them: all but the logarithm,
// which is the host's. Every function is called by all threads of the group with the same
// arguments.
#pragma once

#include <cstdint>

#include "kernels/sample_draw.cuh"

namespace octavo::cuda {

// The values that log-probabilities are of: logits, or what they were drawn from.
struct Values {
  const float* logits;  // [vocab]
  int32_t vocab;
  bool filtered;
  Filter filter;

  __device__ __forceinline__ float of(float logit, int32_t id) const {
    if (!filtered) return logit;
    return filter.weight(logit, id) == 0.0f ? -infinity() : __fdiv_rn(logit, filter.temperature);
  }
  __device__ __forceinline__ float at(int32_t id) const { return of(logits[id], id); }

  template <typename Take>
  __device__ __forceinline__ void for_each(const Group& group, const Take& take) const {
    group.for_each(logits, vocab, [&](float logit, int32_t id) { take(of(logit, id), id); });
  }
};

// ---- The sum of exponentials ----

// The parts of a tile's sum, by lane: approximately what the sum is where each chunk begins, which
// tells its binade. `before`: all tiles before this one; grows by this tile.
__device__ inline double sum_before_chunk(Group& group, double part, int turn, double& before) {
  SampleShared& shared = group.shared();
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kSumLanes, warp = thread / 32;
  double end = part;  // of this chunk and those before it in the warp
  for (int offset = kSumLanes; offset < 32; offset *= 2) {
    const double other = __shfl_up_sync(0xffffffffu, end, offset);
    if (thread % 32 >= offset) end += other;
  }
  double start = __shfl_up_sync(0xffffffffu, end, kSumLanes);
  if (thread % 32 < kSumLanes) start = 0;
  if (thread % 32 >= 32 - kSumLanes) shared.sums.lane_parts[warp][lane] = end;
  __syncthreads();
  double warps = 0, all_warps = 0;
  for (int i = 0; i < kSampleWarps; ++i) {
    if (i == warp) warps = all_warps;
    all_warps += shared.sums.lane_parts[i][lane];
  }
  if (thread < kSumLanes) shared.lane_totals[turn][thread] = all_warps;
  group.sync();
  start += before + warps;
  for (int rank = 0; rank < group.size(); ++rank) {
    const double total = *group.at(rank, &shared.lane_totals[turn][lane]);
    if (rank < group.rank()) start += total;
    before += total;
  }
  return start;
}

// Each chunk's lane as a run of additions in the binade that `start` is in, where it seems to stay
// there; and the four chunks of a warp as one.
__device__ inline void make_runs(const Values& values, float max, int chunk, double start,
                                 double part) {
  SampleShared& shared = block_shared();
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kSumLanes;
  SumRun run;
  int exponent = start > 0 ? exponent_field(start) : -1;
  if (exponent != exponent_field(start + part)) exponent = -1;
  if (exponent >= 0) {
    Group::for_each_of_lane(values.logits, values.vocab, chunk, lane, [&](float logit, int32_t id) {
      const float weight = exp_nonpositive(__fsub_rn(values.of(logit, id), max));
      run.add(__float_as_uint(weight), exponent - 1023);
    });
  }
  shared.sums.runs[lane][thread / kSumLanes] = run;
  shared.sums.run_exponents[lane][thread / kSumLanes] = static_cast<int16_t>(exponent);
  __syncthreads();
  if (thread < kSumLanes * kSampleWarps) {
    const int warp = thread / kSumLanes;
    constexpr int kChunks = kSliceChunks / kSampleWarps;
    SumRun all;
    int common = shared.sums.run_exponents[lane][warp * kChunks];
    for (int i = 0; i < kChunks; ++i) {
      all = all.then(shared.sums.runs[lane][warp * kChunks + i]);
      if (shared.sums.run_exponents[lane][warp * kChunks + i] != common) common = -1;
    }
    shared.sums.warp_runs[lane][warp] = all;
    shared.sums.warp_exponents[lane][warp] = static_cast<int16_t>(common);
  }
  __syncthreads();
}

// One lane's sum goes on through a slice: by runs, and element by element where they do not hold.
__device__ inline double add_slice(const Values& values, float max, int32_t slice, int lane,
                                   double sum) {
  const SampleShared& shared = block_shared();
  constexpr int kChunks = kSliceChunks / kSampleWarps;
  for (int warp = 0; warp < kSampleWarps; ++warp) {
    if (slice + warp * kChunks * kSumChunk >= values.vocab) break;
    const double leap =
        apply_run(shared.sums.warp_runs[lane][warp], shared.sums.warp_exponents[lane][warp], sum);
    if (leap >= 0) {
      sum = leap;
      continue;
    }
    for (int chunk = warp * kChunks; chunk < (warp + 1) * kChunks; ++chunk) {
      const double step =
          apply_run(shared.sums.runs[lane][chunk], shared.sums.run_exponents[lane][chunk], sum);
      if (step >= 0) {
        sum = step;
        continue;
      }
      Group::for_each_of_lane(values.logits, values.vocab, slice / kSumChunk + chunk, lane,
                              [&](float logit, int32_t id) {
                                const float value = values.of(logit, id);
                                sum += static_cast<double>(exp_nonpositive(__fsub_rn(value, max)));
                              });
    }
  }
  return sum;
}

// One tile: the lanes' sums pass from block to block. The first goes on where the last one ended in
// the tile before.
__device__ inline void add_tile(Group& group, const Values& values, float max, int32_t slice,
                                bool first_tile) {
  SampleShared& shared = block_shared();
  const int thread = static_cast<int>(threadIdx.x);
  for (int rank = 0; rank < group.size(); ++rank) {
    if (rank == group.rank() && thread % 32 == 0 && thread / 32 < kSumLanes) {
      const int lane = thread / 32;  // warps do not wait for one another's chunks
      const int before = (rank + group.size() - 1) % group.size();
      double sum = rank == 0 && first_tile ? 0.0 : *group.at(before, &shared.lane_sums[lane]);
      if (slice < values.vocab) sum = add_slice(values, max, slice, lane, sum);
      shared.lane_sums[lane] = sum;
    }
    group.sync();
  }
}

// The sum of exp(value - max) to the bit: eight lanes of additions one after the other.
__noinline__ __device__ inline double sum_exponentials(Group& group, Values values, float max) {
  SampleShared& shared = group.shared();
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kSumLanes;
  double before = 0;
  int turn = 0;
  for (int32_t tile = 0; tile < values.vocab; tile += group.size() * kSlice, turn ^= 1) {
    const int32_t slice = tile + group.rank() * kSlice;
    const int chunk = slice / kSumChunk + thread / kSumLanes;
    double part = 0;
    Group::for_each_of_lane(values.logits, values.vocab, chunk, lane, [&](float logit, int32_t id) {
      part += static_cast<double>(exp_nonpositive(__fsub_rn(values.of(logit, id), max)));
    });
    const double start = sum_before_chunk(group, part, turn, before);
    make_runs(values, max, chunk, start, part);
    add_tile(group, values, max, slice, tile == 0);
  }
  double sum = 0;
  const double* lanes = group.at(group.size() - 1, shared.lane_sums);
  for (int i = 0; i < kSumLanes; ++i) sum += lanes[i];
  return sum;
}

// ---- The best ids ----

// The first block's list in descending order. `count` is a power of two; called by that block.
__device__ inline void sort_list(int count) {
  SampleShared& shared = block_shared();
  for (int run = 2; run <= count; run *= 2) {
    for (int distance = run / 2; distance > 0; distance /= 2) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < count / 2; i += kSampleThreads) {
        const int low = i / distance * 2 * distance + i % distance, high = low + distance;
        const uint64_t a = shared.list[low], b = shared.list[high];
        const bool descending = (low & run) == 0;
        if ((a < b) == descending) {
          shared.list[low] = b;
          shared.list[high] = a;
        }
      }
    }
  }
  __syncthreads();
}

// The values that `wanted` says, in order, to the first block's list: at most kMostListed. For that
// block, their number.
template <typename Wanted>
__device__ int list_values(Group& group, const Values& values, const Wanted& wanted) {
  SampleShared& shared = block_shared();
  if (threadIdx.x == 0) shared.listed = 0;
  __syncthreads();
  values.for_each(group, [&](float value, int32_t id) {
    const uint32_t key = order_key(value);
    if (wanted(key, id)) shared.list[atomicAdd(&shared.listed, 1u)] = ranked(key, id);
  });
  group.sync();
  if (group.rank() != 0) return 0;
  auto listed = static_cast<int>(shared.listed);
  for (int rank = 1; rank < group.size(); ++rank) {
    const auto others = static_cast<int>(*group.at(rank, &shared.listed));
    const uint64_t* list = group.at(rank, shared.list);
    for (int i = static_cast<int>(threadIdx.x); i < others; i += kSampleThreads) {
      shared.list[listed + i] = list[i];
    }
    listed += others;
  }
  int count = 1;
  while (count < listed) count *= 2;
  for (int i = listed + static_cast<int>(threadIdx.x); i < count; i += kSampleThreads) {
    shared.list[i] = 0;
  }
  sort_list(count);
  return listed;
}

// The `count` best ids, in order, to the first block's list; for it, how many ids are as good as
// the last of them or better. `thread_key`: the largest of the thread's values.
__noinline__ __device__ inline int32_t list_best(Group& group, Values values, uint32_t thread_key,
                                                 int32_t count) {
  SampleShared& shared = group.shared();
  const auto visit_threads = [&](auto take) {
    if (thread_key != 0) take(thread_key);
  };
  const Selection bound = select<Amount::kCount>(group, visit_threads, count, 0, 1);
  uint64_t candidates = 0;
  values.for_each(group, [&](float value, int32_t) {
    if (order_key(value) >= bound.key) ++candidates;
  });
  if (group.sum(candidates) <= kMostListed) {  // more than are wanted, and few enough
    const int listed =
        list_values(group, values, [&](uint32_t key, int32_t) { return key >= bound.key; });
    if (group.rank() != 0) return 0;
    int32_t rank = count;
    const uint32_t last = key_of(shared.list[count - 1]);
    while (rank < listed && key_of(shared.list[rank]) == last) ++rank;
    return rank;
  }
  const auto visit = [&](auto take) {
    values.for_each(group, [&](float value, int32_t) { take(order_key(value)); });
  };
  const Selection last = select<Amount::kCount>(group, visit, count, bound.key);
  const auto above = static_cast<int32_t>(last.above), equal = static_cast<int32_t>(last.amount);
  int32_t last_id = kLastId;
  if (above + equal > count) {
    const auto matching = [&](float logit, int32_t id) {
      return order_key(values.of(logit, id)) == last.key;
    };
    const Row row{const_cast<float*>(values.logits), values.vocab};
    last_id = id_of_count(group, row, matching, static_cast<uint64_t>(count - above));
  }
  list_values(group, values, [&](uint32_t key, int32_t id) {
    return key > last.key || (key == last.key && id <= last_id);
  });
  return above + equal;
}

// How many values are not less than `value`.
__noinline__ __device__ inline int32_t rank_of(Group& group, Values values, float value) {
  uint64_t count = 0;
  values.for_each(group, [&](float other, int32_t) { count += other >= value ? 1u : 0u; });
  return static_cast<int32_t>(group.sum(count));
}

// ---- A row's answer ----

struct ResultLists {
  int32_t* ids;
  float* values;
  int32_t* ranks;
};
__device__ __forceinline__ ResultLists lists_of(PackedResult* result, int32_t count) {
  auto* ids = reinterpret_cast<int32_t*>(result + 1);
  auto* values = reinterpret_cast<float*>(ids + count);
  return {ids, values, reinterpret_cast<int32_t*>(values + count)};
}

// Of ids that were asked for, several in a pass.
__noinline__ __device__ inline void write_ids(Group& group, Values values, const int32_t* ids,
                                              int32_t count, const ResultLists& lists) {
  constexpr int kAtOnce = 8;
  for (int32_t first = 0; first < count; first += kAtOnce) {
    float wanted[kAtOnce];
    uint64_t ranks[kAtOnce] = {};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      wanted[i] = first + i < count ? values.at(ids[first + i]) : 0.0f;
    }
    values.for_each(group, [&](float other, int32_t) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) ranks[i] += other >= wanted[i] ? 1u : 0u;
    });
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      ranks[i] = group.sum(ranks[i]);
      if (!group.first_thread() || first + i >= count) continue;
      lists.ids[first + i] = ids[first + i];
      lists.values[first + i] = wanted[i];
      lists.ranks[first + i] = static_cast<int32_t>(ranks[i]);
    }
  }
}

__noinline__ __device__ inline void write_logprobs(Group& group, Values values,
                                                   const PackedRow& how, const void* upload,
                                                   int32_t token, PackedResult* result) {
  uint64_t largest = 0;
  values.for_each(group, [&](float value, int32_t id) {
    const uint64_t found = ranked(order_key(value), id);
    largest = found > largest ? found : largest;
  });
  const uint32_t thread_key = key_of(largest);
  const float max = float_of_key(key_of(group.max(largest)));
  const float token_value = values.at(token);
  const int32_t token_rank = rank_of(group, values, token_value);
  const bool by_ids = how.num_ids > 0;
  const int32_t count = by_ids ? how.num_ids : how.top < values.vocab ? how.top : values.vocab;
  const ResultLists lists = lists_of(result, count);
  int32_t last_rank = 0;
  if (by_ids) {
    write_ids(group, values, list_at<int32_t>(upload, how.ids_at), count, lists);
  } else if (count > 0) {
    last_rank = list_best(group, values, thread_key, count);
    if (group.rank() == 0) {
      for (int i = static_cast<int>(threadIdx.x); i < count; i += kSampleThreads) {
        lists.ids[i] = id_of(group.shared().list[i]);
        lists.values[i] = values.at(lists.ids[i]);
      }
    }
  }
  const bool infinite = max == infinity() || max == -infinity();
  const double sum = how.scaled != 0 && !infinite ? sum_exponentials(group, values, max) : 0.0;
  if (!group.first_thread()) return;
  *result = {.sum = sum,
             .max = max,
             .token = token,
             .token_value = token_value,
             .token_rank = token_rank,
             .count = count,
             .last_rank = last_rank};
}

}  // namespace octavo::cuda
