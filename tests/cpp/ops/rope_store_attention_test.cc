#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "ops/backends.h"
#include "ops/compare.h"
#include "ops/ragged_batch.h"
#include "ops/shapes.h"
#include "ops/weights.h"

namespace octavo::test {
namespace {

constexpr DType kCacheDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kInt8};

// Chunks of prompts and single tokens, with contexts that end in, at and after the end of a block.
const std::vector<SequenceShape> kMixed = {{0, 37}, {40, 1}, {15, 1},  {16, 1}, {17, 20},
                                           {0, 1},  {99, 1}, {31, 33}, {0, 16}};

// x rotated as the definition says: pairs (i, i + rotary_dim / 2).
std::vector<float> rotated(const RaggedCase& c, const std::vector<float>& table,
                           const std::vector<float>& x, int32_t position) {
  if (c.rotation == Rotation::kNone) return x;
  const int32_t half = c.rotary() / 2;
  std::vector<float> result = x;
  for (size_t i = 0; i < x.size(); ++i) {
    const int32_t d = static_cast<int32_t>(i) % c.head_dim;
    if (d >= c.rotary()) continue;
    const double cos = table[position * c.rotary() + d % half];
    const double sin = table[position * c.rotary() + half + d % half];
    const double other = d < half ? -x[i + half] : x[i - half];
    result[i] = static_cast<float>(x[i] * cos + other * sin);
  }
  return result;
}

// x [kv_heads * head_dim] as the cache holds it.
std::vector<float> stored(const std::vector<float>& x, const RaggedCase& c) {
  if (c.kv_dtype != DType::kInt8) return rounded(x, c.kv_dtype);
  std::vector<float> result;
  for (int32_t head = 0; head < c.kv_heads; ++head) {
    const auto begin = x.begin() + head * c.head_dim, end = begin + c.head_dim;
    const float most = std::fabs(*std::max_element(
        begin, end, [](float a, float b) { return std::fabs(a) < std::fabs(b); }));
    for (auto at = begin; at != end; ++at) {
      result.push_back(static_cast<float>(std::nearbyint(*at * (127.0f / most)) * (most / 127.0f)));
    }
  }
  return result;
}

// The softmax of one query over keys and values that are gathered before: [keys][head_dim].
std::vector<float> softmax_of(const std::vector<float>& q, float scale,
                              const std::vector<std::vector<float>>& keys,
                              const std::vector<std::vector<float>>& values) {
  std::vector<long double> sums(q.size());
  long double total = 0;
  for (size_t i = 0; i < keys.size(); ++i) {
    long double score = 0;
    for (size_t d = 0; d < q.size(); ++d) score += static_cast<long double>(q[d]) * keys[i][d];
    const long double weight = std::exp(score * scale);
    total += weight;
    for (size_t d = 0; d < q.size(); ++d) sums[d] += weight * values[i][d];
  }
  std::vector<float> out;
  for (long double sum : sums) out.push_back(static_cast<float>(sum / total));
  return out;
}

std::vector<float> head_of(const std::vector<float>& x, int32_t head, int32_t head_dim) {
  return {x.begin() + head * head_dim, x.begin() + (head + 1) * head_dim};
}

// All that a step leaves, for one sequence, appended to `result`.
void append_by_formula(const RaggedCase& c, size_t place, StepResult& result) {
  const SequenceData data(c, place);
  const std::vector<float> table = cos_sin_table(c);
  const auto [computed, scheduled, seed, broken] = c.sequences[place];
  std::vector<std::vector<float>> keys,
      values;  // as the cache holds them: [position][kv_heads * d]
  for (int32_t p = 0; p < computed + scheduled; ++p) {
    const std::vector<float> k = rotated(c, table, data.k[p], p);
    keys.push_back(stored(k, c));
    values.push_back(stored(data.v[p], c));
    if (p < computed) continue;
    const std::vector<float> q = rotated(c, table, data.q[p], p);
    result.q.insert(result.q.end(), q.begin(), q.end());
    result.k.insert(result.k.end(), k.begin(), k.end());
    for (int32_t head = 0; head < c.heads; ++head) {
      const int32_t kv_head = head / (c.heads / c.kv_heads);
      std::vector<std::vector<float>> seen_keys, seen_values;
      for (int32_t other = 0; other <= p; ++other) {
        if (c.window != 0 && other <= p - c.window) continue;
        seen_keys.push_back(head_of(keys[other], kv_head, c.head_dim));
        seen_values.push_back(head_of(values[other], kv_head, c.head_dim));
      }
      const std::vector<float> out =
          softmax_of(head_of(q, head, c.head_dim), c.used_scale(), seen_keys, seen_values);
      result.attention.insert(result.attention.end(), out.begin(), out.end());
    }
  }
}

StepResult by_formula(const RaggedCase& c) {
  StepResult result;
  for (size_t i = 0; i < c.sequences.size(); ++i) append_by_formula(c, i, result);
  return result;
}

// Rotation with angles where the cache keeps float32, and with quarter turns where it rounds.
Rotation rotation_for(DType kv_dtype) {
  return kv_dtype == DType::kFloat32 ? Rotation::kAngles : Rotation::kTurns;
}

// Of caches; CUDA has none of int8.
std::vector<DType> cache_dtypes() {
  if (skipped_on_cuda("caches of int8 are not supported")) {
    return {std::begin(kFloatingDTypes), std::end(kFloatingDTypes)};
  }
  return {std::begin(kCacheDTypes), std::end(kCacheDTypes)};
}

std::vector<RaggedCase> cases() {
  std::vector<RaggedCase> cases;
  for (DType dtype : cache_dtypes()) {
    for (int32_t head_dim : kHeadDims) {
      cases.push_back({6, 2, head_dim, dtype, kMixed, rotation_for(dtype)});
    }
    for (int32_t group : kGroups) {
      cases.push_back({2 * group, 2, 20, dtype, kMixed, rotation_for(dtype)});
      cases.push_back({group, 1, 64, dtype, {{50, 3}, {33, 1}}, rotation_for(dtype)});
    }
    for (int32_t window : {1, 2, 15, 16, 17, 33, 1000}) {
      cases.push_back({4, 2, 16, dtype, kMixed, rotation_for(dtype), 0, window});
    }
    for (int32_t block_size : {1, 8, 32}) {
      cases.push_back({3, 1, 24, dtype, kMixed, rotation_for(dtype), 0, 0, block_size});
    }
    cases.push_back({4, 4, 64, dtype, {{0, 1}}});
    cases.push_back({4, 2, 64, dtype, {}});
    cases.push_back({4, 2, 32, dtype, {{20, 0}, {3, 5}}});
    cases.push_back({2, 1, 64, dtype, {{1999, 1}}});
    cases.push_back({2, 1, 16, dtype, {{0, 300}}});
    cases.push_back({2, 1, 16, dtype, std::vector<SequenceShape>(40, SequenceShape{33, 1})});
  }
  for (int32_t rotary_dim : {2, 10, 32, 48}) {
    cases.push_back({4, 2, 64, DType::kFloat32, kMixed, Rotation::kAngles, rotary_dim});
  }
  return cases;
}

// 16-bit activations, on a back end that has them.
std::vector<RaggedCase> narrow_cases() {
  std::vector<RaggedCase> cases;
  for (DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    for (const RaggedCase& wide : octavo::test::cases()) {
      if (wide.kv_dtype != DType::kFloat32 && wide.kv_dtype != dtype) continue;
      RaggedCase c = wide;
      c.dtype = c.kv_dtype = dtype;
      cases.push_back(c);
    }
  }
  return cases;
}

TEST_CASE("ref: rope_store and attention are their formulas") {
  for (const RaggedCase& c : cases()) {
    const StepResult expected = by_formula(c);
    for (Layout layout : {Layout::kDense, Layout::kStrided}) {
      const StepResult actual = run_step(ref(), c, layout);
      check_close("rotated q: " + c.name(), actual.q, expected.q, c.head_dim, 2e-7);
      check_close("rotated k: " + c.name(), actual.k, expected.k, c.head_dim, 2e-7);
      check_close("attention: " + c.name(), actual.attention, expected.attention, c.head_dim, 1e-6);
    }
  }
}

TEST_CASE("rope_store and attention are close to ref") {
  if (other_backends().empty()) return;
  for (const RaggedCase& c : cases()) {
    const StepResult expected = run_step(ref(), c);
    std::map<std::string, StepResult> first_of_isa;
    for (const NamedBackend& other : other_backends()) {
      const std::string what = other.name + ": " + c.name();
      // Threads and layouts change no bit, so each is tried with one of the others.
      const Layout layout = first_of_isa.contains(other.isa) ? Layout::kStrided : Layout::kDense;
      const StepResult actual = run_step(*other.backend, c, layout);
      check_close("rotated q, " + what, actual.q, expected.q, c.head_dim, 1e-6);
      check_close("rotated k, " + what, actual.k, expected.k, c.head_dim, 1e-6);
      // Weights that are rounded to bfloat16 err by 2^-9 of each: the average of normal values by
      // 2^-9 of their mean size, before they cancel.
      // Keys and values that were int8 are rounded too, and a score, of size one, errs as they do.
      const bool rounds = other.rounds_rows && c.kv_dtype == DType::kBFloat16;
      const bool widens = other.rounds_rows && c.kv_dtype == DType::kInt8;
      check_close("attention, " + what, actual.attention, expected.attention, c.head_dim,
                  widens   ? 0x1p-6
                  : rounds ? 0x1p-8
                           : kTolerance,
                  rounds || widens ? 1.0 : 0.0);
      check_cosine("attention, " + what, actual.attention, expected.attention);
      const auto [first, is_first] = first_of_isa.emplace(other.isa, actual);
      if (is_first) continue;
      check_same_bits("rotated q, " + what, actual.q, first->second.q);
      check_same_bits("rotated k, " + what, actual.k, first->second.k);
      check_same_bits("attention, " + what, actual.attention, first->second.attention);
    }
  }
}

// 16-bit activations: q and k are rounded when they are rotated, the weights of the sum before it,
// and the sum. Each errs by an ulp / 2 at most, of rms 0.2 ulps in a row's terms; the largest of
// all elements by some five times what these add up to.
constexpr double kRoundings = 4.0;

void check_narrow(const RaggedCase& c, Layout layout) {
  const StepResult expected = run_step(ref(), c);
  for (const NamedBackend& other : other_backends()) {
    const std::string what = other.name + ": " + c.name();
    const StepResult actual = run_step(*other.backend, c, layout);
    const double ulp = ulps(c.dtype, 1);
    check_close("rotated q, " + what, actual.q, expected.q, c.head_dim, 1e-6, 0.0, ulp / 2);
    check_close("rotated k, " + what, actual.k, expected.k, c.head_dim, 1e-6, 0.0, ulp / 2);
    check_close("attention, " + what, actual.attention, expected.attention, c.head_dim,
                kRoundings * ulp, 0.0, kRoundings * ulp);
    check_cosine("attention, " + what, actual.attention, expected.attention);
  }
}

TEST_CASE("rope_store and attention of 16 bits are close to ref") {
  if (!on_cuda()) return;
  for (const RaggedCase& c : narrow_cases()) {
    for (Layout layout : {Layout::kDense, Layout::kStrided}) check_narrow(c, layout);
  }
}

TEST_CASE("attention of 16 bits survives large scores") {
  if (!on_cuda()) return;
  for (DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    for (float scale : {5.0f, -5.0f}) {
      RaggedCase c{8, 2, 64, dtype, {{60, 5}, {0, 20}, {33, 1}, {500, 1}}};
      c.scale = scale;
      c.dtype = dtype;
      check_narrow(c, Layout::kDense);
    }
  }
}

// Rows that only pad a step are not stored, their attention is zero, and they change no other row.
TEST_CASE("padding rows are zero and leave the others alone") {
  if (!on_cuda()) return;
  for (DType dtype : activation_dtypes()) {
    RaggedCase c{8, 2, 64, dtype, {{40, 1}, kPadding, {99, 1}, kPadding, {600, 1}, {0, 1}}};
    c.dtype = dtype;
    c.sequences.insert(c.sequences.end(), 5, kPadding);
    const std::vector<float> actual = run_step(*other_backends().front().backend, c).attention;
    const std::vector<float> expected = run_step(ref(), c).attention;
    const double ulp = ulps(dtype, kRoundings);
    check_close(c.name(), actual, expected, 64, std::max(kTolerance, ulp), 0.0, ulp);
    const std::vector<float> zeros(5 * 8 * 64);
    check_same_bits(c.name(), rows_of(actual, 8 * 64, 6, 11), zeros);
  }
}

// Attention over one key is its value: what the cache holds, to the bit.
TEST_CASE("the cache holds values rounded to its dtype") {
  for (DType dtype : kFloatingDTypes) {
    const RaggedCase c{3, 3, 40, dtype, {{0, 1}, {0, 1}, {7, 1}}, Rotation::kNone, 0, 1};
    std::vector<float> expected;
    for (size_t i = 0; i < c.sequences.size(); ++i) {
      const std::vector<float> v = rounded(SequenceData(c, i).v.back(), dtype);
      expected.insert(expected.end(), v.begin(), v.end());
    }
    for_each_backend([&](Backend& backend, const std::string& name) {
      check_same_bits(name + ": " + c.name(), run_step(backend, c).attention, expected);
    });
  }
}

// Scores of a hundred and more: their exponentials overflow float32 unless the largest is taken
// off. A score's float32 error is 2^-24 of its size, which the weights inherit.
TEST_CASE("attention survives large scores") {
  for (float scale : {5.0f, -5.0f}) {
    RaggedCase c{2, 1, 64, DType::kFloat32, {{60, 5}, {0, 20}}};
    c.scale = scale;
    check_close(c.name(), run_step(ref(), c).attention, by_formula(c).attention, 64, 1e-6);
    check_against_ref(c.name(), 64,
                      [&](Backend& backend) { return run_step(backend, c).attention; },
                      {.tolerance = 2e-4});
  }
}

TEST_CASE("attention gives a sequence the same bits in every batch and in every block") {
  if (skipped_on_cuda(kBatchInvariance)) return;
  for (DType dtype : kCacheDTypes) {
    for (int32_t window : {0, 21}) {
      RaggedCase whole{6,
                       2,
                       48,
                       dtype,
                       {{0, 37, 11}, {40, 1, 12}, {99, 1, 13}, {31, 33, 14}},
                       Rotation::kAngles};
      whole.window = window;
      for_each_backend([&](Backend& backend, const std::string& name) {
        const std::vector<float> together = run_step(backend, whole).attention;
        int64_t begin = 0;
        for (const SequenceShape& sequence : whole.sequences) {
          RaggedCase alone = whole;
          alone.sequences = {sequence};
          alone.layout_seed = 77;
          check_same_bits(name + ": alone " + alone.name(), run_step(backend, alone).attention,
                          rows_of(together, 6 * 48, begin, begin + sequence.scheduled));
          begin += sequence.scheduled;
        }
      });
    }
  }
}

TEST_CASE("attention keeps a NaN in its own sequence") {
  for (DType dtype : cache_dtypes()) {
    RaggedCase clean{4, 2, 24, dtype, {{0, 20, 1}, {5, 3, 2}, {40, 1, 3}}};
    RaggedCase dirty = clean;
    dirty.sequences[1].broken = true;
    for_each_backend([&](Backend& backend, const std::string& name) {
      const int64_t row = 4 * 24;
      const std::vector<float> clean_out = run_step(backend, clean).attention;
      const std::vector<float> out = run_step(backend, dirty).attention;
      check_same_bits(name + ": before", rows_of(out, row, 0, 20), rows_of(clean_out, row, 0, 20));
      check_same_bits(name + ": after", rows_of(out, row, 23, 24), rows_of(clean_out, row, 23, 24));
      // Element 0 of KV head 0, which query heads 0 and 1 read.
      for (int64_t token : {20, 21, 22}) {
        for (int64_t head : {0, 1}) CHECK(std::isnan(out[token * row + head * 24]));
      }
    });
  }
}

TEST_CASE("attention gives a token the same bits in every chunk") {
  if (skipped_on_cuda(kBatchInvariance)) return;
  for (DType dtype : kCacheDTypes) {
    for (int32_t window : {0, 21}) {
      RaggedCase whole{4, 2, 40, dtype, {{0, 83, 21}}, Rotation::kAngles};
      whole.window = window;
      for_each_backend([&](Backend& backend, const std::string& name) {
        const std::vector<float> at_once = run_step(backend, whole).attention;
        for (int32_t computed : {1, 15, 16, 17, 31, 48, 50, 79, 82}) {
          RaggedCase chunk = whole;
          chunk.sequences = {{computed, 83 - computed, 21}};
          check_same_bits(name + ": last chunk " + chunk.name(), run_step(backend, chunk).attention,
                          rows_of(at_once, 4 * 40, computed, 83));
          chunk.sequences = {{computed, 1, 21}};
          check_same_bits(name + ": one token " + chunk.name(), run_step(backend, chunk).attention,
                          rows_of(at_once, 4 * 40, computed, computed + 1));
        }
      });
    }
  }
}

TEST_CASE("ref: begin_step refuses a batch that does not add up") {
  const std::vector<int32_t> starts = {0, 2, 3}, contexts = {2, 17}, tables = {0, -1, 1, 2};
  const StepMeta good{.num_tokens = 3,
                      .block_size = 16,
                      .query_start = starts,
                      .context_len = contexts,
                      .block_tables = tables,
                      .max_blocks = 2};
  ref().begin_step(good);
  const auto refused = [&](auto change) {
    StepMeta meta = good;
    change(meta);
    CHECK_THROWS_AS(ref().begin_step(meta), InternalError);
  };
  const std::vector<int32_t> falling = {0, 4, 3}, shorter = {1, 17}, longer = {2, 33};
  refused([](StepMeta& meta) { meta.num_tokens = 4; });
  refused([](StepMeta& meta) { meta.block_size = 0; });
  refused([](StepMeta& meta) { meta.max_blocks = 1; });
  refused([&](StepMeta& meta) { meta.query_start = std::span(starts).first(2); });
  refused([&](StepMeta& meta) { meta.query_start = falling; });
  refused([&](StepMeta& meta) { meta.context_len = shorter; });
  refused([&](StepMeta& meta) { meta.context_len = longer; });
}

}  // namespace
}  // namespace octavo::test
