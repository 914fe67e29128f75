#include "ceilings.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include "base/thread_pool.h"

namespace octavo::bench {
namespace {

// Chosen at run time by the compiler's own dispatch, so that the limit is the machine's.
#define WIDEST __attribute__((target_clones("avx512f", "avx2,fma", "default")))

WIDEST uint64_t read_words(const uint64_t* words, size_t count) {
  uint64_t sums[32] = {};
  for (size_t i = 0; i + 32 <= count; i += 32) {
    for (size_t j = 0; j < 32; ++j) sums[j] += words[i + j];
  }
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

constexpr int kChains = 192;  // floats: enough independent additions for any machine

WIDEST float multiply_and_add(int64_t rounds) {
  float sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = static_cast<float>(i);
  for (int64_t round = 0; round < rounds; ++round) {
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * 0.999f + 0.001f;
  }
  float sum = 0;
  for (const float part : sums) sum += part;
  return sum;
}

double best_seconds(double seconds, const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9, spent = 0;
  for (int i = 0; i < 3 || spent < seconds; ++i) {
    const auto begin = Clock::now();
    run();
    const double took = std::chrono::duration<double>(Clock::now() - begin).count();
    if (i > 0) best = std::min(best, took);
    spent += took;
  }
  return best;
}

}  // namespace

Ceilings measure_ceilings(int32_t threads, double seconds) {
  ThreadPool pool(threads);
  constexpr size_t kWords = size_t{32} << 20;  // 256 MiB
  const std::vector<uint64_t> words(kWords, 1);
  std::vector<uint64_t> sums(static_cast<size_t>(threads));
  std::vector<float> totals(static_cast<size_t>(threads));
  const size_t part = kWords / static_cast<size_t>(threads);
  const double reading = best_seconds(seconds, [&] {
    pool.parallel_for(threads, [&](int64_t i) {
      sums[static_cast<size_t>(i)] = read_words(words.data() + static_cast<size_t>(i) * part, part);
    });
  });
  constexpr int64_t kRounds = 100000;
  const double computing = best_seconds(seconds, [&] {
    pool.parallel_for(
        threads, [&](int64_t i) { totals[static_cast<size_t>(i)] = multiply_and_add(kRounds); });
  });
  Ceilings ceilings{};
  ceilings.memory = static_cast<double>(part * sizeof(uint64_t)) * threads / reading;
  ceilings.multiply_add = 2.0 * kRounds * kChains * threads / computing;
  // The results are used, so that nothing above is left out.
  if (sums[0] == 7 && totals[0] == 7) ceilings.memory += 1;
  return ceilings;
}

}  // namespace octavo::bench
