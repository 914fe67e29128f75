// Attention at the sizes of models: contexts of thousands of tokens, long prompts with and without
// a beginning in the cache, large batches, and all of these in one step. Of long prompts some rows
// are compared, for the reference takes a second for a few hundred of them.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "ops/backends.h"
#include "ops/compare.h"
#include "ops/ragged_batch.h"

namespace octavo::test {
namespace {

struct Heads {
  int32_t heads, kv_heads, head_dim;
};
// SmolLM2, OPT-125m, Llama-3-8B (of a quarter of its heads), Qwen2-0.5B, OPT-2.7B, Phi-3, Gemma-2B,
// and groups that fill no tile.
constexpr Heads kFew[] = {{9, 3, 64}};
constexpr Heads kMany[] = {{9, 3, 64}, {12, 12, 64}, {8, 2, 128}, {14, 2, 64}, {4, 4, 80},
                           {8, 2, 80}, {3, 3, 96},   {8, 2, 96},  {8, 1, 256}, {6, 2, 256},
                           {5, 1, 72}, {17, 1, 64},  {8, 8, 128}, {32, 1, 128}};
constexpr Heads kLlama = {32, 8, 128};

std::vector<Heads> shapes() {
  if (!on_cuda()) return {std::begin(kFew), std::end(kFew)};
  return {std::begin(kMany), std::end(kMany)};
}

RaggedCase case_of(const Heads& heads, DType dtype, std::vector<SequenceShape> sequences,
                   int32_t window = 0) {
  RaggedCase c{heads.heads, heads.kv_heads, heads.head_dim, dtype, std::move(sequences)};
  c.window = window;
  c.dtype = dtype;
  c.rotation = Rotation::kTurns;
  return c;
}

// Rows of the step that are compared: of each sequence its first and last ones, those beside the
// multiples of tiles, and some others. Padding is left out: it has no row alone.
std::vector<int64_t> chosen_rows(const RaggedCase& c) {
  std::vector<int64_t> rows;
  Random random(5);
  int64_t begin = 0;
  for (const auto& [computed, scheduled, seed, broken] : c.sequences) {
    std::set<int64_t> own;
    for (int64_t tile : {0, 16, 32, 64, 128, 512, 1024, 2048}) {
      for (int64_t row : {tile - 1, tile, tile + 1, scheduled - 1 - tile}) own.insert(row);
    }
    for (int i = 0; i < 8; ++i) own.insert(random.below(scheduled));
    for (int64_t row : own) {
      if (row >= 0 && row < scheduled && computed + row >= 0) rows.push_back(begin + row);
    }
    begin += scheduled;
  }
  return rows;
}

double roundings(DType dtype) { return ulps(dtype, 4.0); }  // as of short contexts

void check(const RaggedCase& c) {
  const std::vector<int64_t> rows = chosen_rows(c);
  RaggedRun reference(ref(), c);
  const std::vector<BatchToken> tokens = reference.step_tokens();
  std::vector<BatchToken> chosen;
  for (int64_t row : rows) chosen.push_back(tokens[static_cast<size_t>(row)]);
  const std::vector<float> expected = reference.tokens_alone(chosen);
  const int64_t width = c.heads * c.head_dim;
  for (const NamedBackend& other : other_backends()) {
    const std::vector<float> all = run_step(*other.backend, c).attention;
    std::vector<float> actual;
    for (int64_t row : rows) {
      actual.insert(actual.end(), all.begin() + row * width, all.begin() + (row + 1) * width);
    }
    const std::string what = other.name + ": " + c.name().substr(0, 400);
    const bool rounds = other.rounds_rows && c.kv_dtype == DType::kBFloat16;
    const double ulp = roundings(other.backend->activation_dtype(c.dtype));
    check_close(what, actual, expected, c.head_dim, std::max(rounds ? 0x1p-8 : kTolerance, ulp),
                rounds ? 1.0 : 0.0, ulp);
    check_cosine(what, actual, expected);
    const auto finite = [](float value) { return std::isfinite(value); };
    CHECK_MESSAGE(std::ranges::all_of(all, finite), what, ": a row that is not compared");
  }
}

// Contexts of a decode step at, before and after the multiples of blocks, tiles and splits.
std::vector<SequenceShape> decode_contexts(int32_t most) {
  std::vector<SequenceShape> sequences;
  for (int32_t length : {1,    2,    15,   16,   17,   31,   32,   33,   48,   63,   64,   65,
                         100,  127,  128,  129,  255,  256,  257,  300,  511,  512,  513,  777,
                         1000, 1023, 1024, 1025, 2047, 2048, 2049, 3000, 4095, 4096, 4097, 5000}) {
    if (length <= most) sequences.push_back({length - 1, 1});
  }
  return sequences;
}

void check_decode(DType dtype) {
  const int32_t most = on_cuda() ? 5000 : 400;
  for (const Heads& heads : shapes()) {
    check(case_of(heads, dtype, decode_contexts(on_cuda() ? 1100 : 257)));
    check(case_of(heads, dtype, {{most - 1, 1}}));  // a batch of one is split the most
    check(case_of(heads, dtype, {{most - 1, 1}, {2, 1}, {most / 2, 1}}));
    for (int32_t window : {1, 17, 256, 700}) {
      check(case_of(heads, dtype, {{most - 1, 1}, {255, 1}, {16, 1}, {0, 1}}, window));
    }
  }
  if (on_cuda()) check(case_of(kLlama, dtype, decode_contexts(5000)));
}

void check_batches(DType dtype) {
  Random random(3);
  for (int32_t size : {1, 2, 3, 4, 5, 8, 9, 16, 17, 33, 64, 100, 128, 129, 256, 300}) {
    if (!on_cuda() && size != 17) continue;
    std::vector<SequenceShape> sequences;
    for (int32_t i = 0; i < size; ++i) sequences.push_back({random.below(400), 1});
    // As a recorded step is padded: to a multiple of eight.
    for (int32_t i = size; on_cuda() && i % 8 != 0; ++i) sequences.push_back(kPadding);
    check(case_of(kFew[0], dtype, sequences));
    if (on_cuda() && size % 16 < 2) check(case_of(kLlama, dtype, sequences));
  }
}

void check_prefill(DType dtype) {
  const std::vector<SequenceShape> short_ones = {
      {0, 1},  {0, 2},  {0, 3},   {0, 7}, {0, 15}, {0, 16},  {0, 17},  {0, 31},  {0, 33}, {0, 63},
      {0, 64}, {0, 65}, {0, 100}, {1, 2}, {15, 2}, {16, 16}, {17, 40}, {64, 64}, {5, 129}};
  for (const Heads& heads : shapes()) {
    check(case_of(heads, dtype, short_ones));
    if (!on_cuda()) continue;
    check(case_of(heads, dtype, {{0, 300}, {37, 260}}));
    for (int32_t window : {1, 17, 100}) check(case_of(heads, dtype, {{0, 200}, {150, 70}}, window));
  }
  if (!on_cuda()) return;
  for (const Heads& heads : {Heads{8, 2, 128}, Heads{12, 12, 64}}) {
    check(case_of(heads, dtype, {{0, 2050}}));
    check(case_of(heads, dtype, {{0, 2047}, {1024, 64}, {1000, 1050}, {4000, 300}}));
    check(case_of(heads, dtype, {{0, 2050}, {3000, 500}}, 512));
  }
  check(case_of(kLlama, dtype, {{0, 1024}, {1024, 64}}));
}

// What a scheduler makes of requests that come and go.
void check_mixtures(DType dtype) {
  for (const Heads& heads : shapes()) {
    check(case_of(heads, dtype,
                  {{40, 1}, {0, 90}, {333, 1}, {16, 33}, {0, 1}, {500, 1}, {480, 20}, {31, 1}}));
  }
  if (!on_cuda()) return;
  for (const Heads& heads : {Heads{8, 2, 128}, Heads{12, 12, 64}, Heads{8, 2, 80}}) {
    Random random(7);
    std::vector<SequenceShape> sequences;
    for (int32_t i = 0; i < 120; ++i) {
      sequences.push_back({random.below(700), i % 8 == 3 ? 1 + random.below(150) : 1});
    }
    check(case_of(heads, dtype, sequences));
  }
}

TEST_CASE("float32: attention of decode steps at models' sizes") { check_decode(DType::kFloat32); }
TEST_CASE("float32: attention of batches") { check_batches(DType::kFloat32); }
TEST_CASE("float32: attention of prompts") { check_prefill(DType::kFloat32); }
TEST_CASE("float32: attention of mixed steps") { check_mixtures(DType::kFloat32); }
TEST_CASE("bfloat16: attention of decode steps at models' sizes") {
  check_decode(DType::kBFloat16);
}
TEST_CASE("bfloat16: attention of batches") { check_batches(DType::kBFloat16); }
TEST_CASE("bfloat16: attention of prompts") { check_prefill(DType::kBFloat16); }
TEST_CASE("bfloat16: attention of mixed steps") { check_mixtures(DType::kBFloat16); }
TEST_CASE("float16: attention of decode steps at models' sizes") { check_decode(DType::kFloat16); }
TEST_CASE("float16: attention of batches") { check_batches(DType::kFloat16); }
TEST_CASE("float16: attention of prompts") { check_prefill(DType::kFloat16); }
TEST_CASE("float16: attention of mixed steps") { check_mixtures(DType::kFloat16); }

}  // namespace
}  // namespace octavo::test
