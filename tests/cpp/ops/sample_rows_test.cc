// What rows of logits have beside their draw: edits, given tokens and log-probabilities, in batches
// of rows of every kind, against ref; and rows as long as models' vocabularies.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "base/check.h"
#include "ops/backends.h"
#include "ops/compare.h"
#include "ops/device_matrix.h"
#include "ops/random.h"

namespace octavo::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What the spans of a SampleRow point to.
struct RowData {
  std::vector<TokenBias> bias;
  std::vector<int32_t> allowed, banned, bad, ids;
  std::vector<TokenCount> counts;
  std::vector<uint32_t> mask;
};

std::vector<int32_t> some_ids(Random& random, int32_t most, int32_t vocab) {
  std::set<int32_t> ids;
  for (int32_t i = random.below(most + 1); i > 0; --i) ids.insert(random.below(vocab));
  return {ids.begin(), ids.end()};
}

SampleRow plain_row(Random& random, uint32_t position) {
  SampleRow row;
  if (random.below(3) != 0) {
    row.temperature = static_cast<float>(0.3 + 1.2 * random.uniform());
    if (random.below(2) == 0) row.top_p = static_cast<float>(0.1 + 0.89 * random.uniform());
    if (random.below(2) == 0) row.min_p = static_cast<float>(0.2 * random.uniform());
    if (random.below(2) == 0) row.top_k = 1 + random.below(60);
  }
  row.seed = random.bits();
  row.position = position;
  return row;
}

void add_edits(Random& random, int32_t vocab, RowData& data, SampleRow& row) {
  for (int32_t id : some_ids(random, 6, vocab)) {
    data.bias.push_back({id, static_cast<float>(8 * random.uniform() - 4)});
  }
  if (random.below(4) == 0) data.allowed = some_ids(random, 40, vocab);
  data.banned = some_ids(random, 3, vocab);
  data.bad = some_ids(random, 3, vocab);
  for (int32_t id : some_ids(random, 20, vocab)) {
    data.counts.push_back({id, random.below(4), random.below(2) == 0});
  }
  if (random.below(3) == 0) {
    data.mask.resize(static_cast<size_t>(vocab + 31) / 32);
    for (uint32_t& word : data.mask) word = static_cast<uint32_t>(random.bits() >> 20);
  }
  row.edits.bias = data.bias;
  row.edits.allowed = data.allowed;
  row.edits.banned = data.banned;
  row.edits.bad = data.bad;
  row.edits.counts = data.counts;
  row.edits.mask = data.mask;
  row.edits.repetition_penalty = random.below(2) == 0 ? 1.0f : 1.3f;
  row.edits.frequency_penalty = random.below(2) == 0 ? 0.0f : 0.4f;
  row.edits.presence_penalty = random.below(2) == 0 ? 0.0f : -0.7f;
}

void add_logprobs(Random& random, int32_t vocab, RowData& data, SampleRow& row) {
  row.logprobs.wanted = true;
  row.logprobs.processed = random.below(2) == 0;
  row.logprobs.logits = random.below(4) == 0;
  row.logprobs.top = std::min(vocab, random.below(22));
  if (random.below(10) == 0) row.logprobs.top = -1;
  if (random.below(4) == 0) {
    data.ids = some_ids(random, 12, vocab);
    row.logprobs.ids = data.ids;
  }
  if (random.below(5) == 0) row.given = random.below(vocab);
}

struct Batch {
  int32_t vocab;
  std::vector<float> logits;  // [rows, vocab]
  std::vector<RowData> data;
  std::vector<SampleRow> rows;
};

enum Kinds { kEdits = 1, kLogprobs = 2 };

Batch random_batch(int32_t vocab, int32_t size, int kinds, uint64_t seed) {
  Random random(seed);
  Batch batch{vocab, {}, std::vector<RowData>(static_cast<size_t>(size)), {}};
  for (int32_t i = 0; i < size; ++i) {
    // Halves, so that there are ties.
    for (float value : random.nearly_normals(vocab)) {
      batch.logits.push_back(random.below(4) == 0 ? std::round(value * 4) / 2 : value * 2);
    }
    SampleRow row = plain_row(random, static_cast<uint32_t>(i));
    RowData& data = batch.data[static_cast<size_t>(i)];
    if ((kinds & kEdits) != 0 && random.below(3) != 0) add_edits(random, vocab, data, row);
    if ((kinds & kLogprobs) != 0 && random.below(3) != 0) add_logprobs(random, vocab, data, row);
    batch.rows.push_back(row);
  }
  return batch;
}

struct Result {
  std::vector<int32_t> tokens;
  std::vector<TokenLogprobs> logprobs;
};

Result run(Backend& backend, const Batch& batch) {
  const DeviceMatrix logits(backend, static_cast<int64_t>(batch.rows.size()), batch.vocab,
                            batch.logits);
  const DeviceVector<int32_t> out(backend, std::vector<int32_t>(batch.rows.size(), -77));
  Result result;
  result.logprobs.resize(batch.rows.size());
  backend.sample(
      {.logits = logits.view, .rows = batch.rows, .out = out.view, .logprobs = result.logprobs});
  result.tokens = download_vector<int32_t>(backend, out.view);
  return result;
}

void check(const std::string& what, const Result& actual, const Result& expected) {
  check_same_bits(what, actual.tokens, expected.tokens);
  for (size_t i = 0; i < expected.logprobs.size(); ++i) {
    const TokenLogprobs &got = actual.logprobs[i], &wanted = expected.logprobs[i];
    const std::string row = str_cat(what, ", row ", i);
    CHECK_MESSAGE(got.token_ids == wanted.token_ids, row);
    CHECK_MESSAGE(got.ranks == wanted.ranks, row);
    REQUIRE_MESSAGE(got.logprobs.size() == wanted.logprobs.size(), row);
    for (size_t j = 0; j < wanted.logprobs.size(); ++j) {
      const double difference = std::fabs(double{got.logprobs[j]} - wanted.logprobs[j]);
      const bool same = got.logprobs[j] == wanted.logprobs[j];  // also where both are infinite
      CHECK_MESSAGE((same || difference <= 2e-6 * (1 + std::fabs(double{wanted.logprobs[j]}))), row,
                    ": log-probability ", j, " is ", got.logprobs[j], ", expected ",
                    wanted.logprobs[j]);
    }
  }
}

void check_batches(int kinds, const std::vector<int32_t>& vocabs, int32_t size) {
  for (int32_t vocab : vocabs) {
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      const Batch batch = random_batch(vocab, size, kinds, seed + static_cast<uint64_t>(vocab));
      const Result expected = run(ref(), batch);
      for (const NamedBackend& other : other_backends()) {
        check(str_cat(other.name, ": vocabulary of ", vocab, ", seed ", seed),
              run(*other.backend, batch), expected);
      }
    }
  }
}

const std::vector<int32_t> kVocabs = {1, 2, 31, 32, 33, 100, 999, 1024, 5003};

TEST_CASE("edited rows are ref's") { check_batches(kEdits, kVocabs, 50); }
TEST_CASE("log-probabilities are ref's") { check_batches(kLogprobs, kVocabs, 50); }
TEST_CASE("edits and log-probabilities together are ref's") {
  check_batches(kEdits | kLogprobs, kVocabs, 70);
}

TEST_CASE("rows of whole vocabularies are ref's") {
  if (!on_cuda()) return check_batches(kEdits | kLogprobs, {50272}, 3);
  check_batches(0, {32000, 50272, 128256, 151936}, 40);
  check_batches(kEdits | kLogprobs, {50272, 128256}, 30);
}

TEST_CASE("many rows at once") {
  if (!on_cuda()) return;
  check_batches(0, {512}, 1024);
  check_batches(kEdits | kLogprobs, {49152}, 256);
}

// The custom edit runs on the host, whatever the device is.
TEST_CASE("custom edits see the logits and give tokens") {
  const std::vector<float> values = Random(3).normals(4 * 200);
  const std::function<bool(std::span<float>)> only_17 = [](std::span<float> logits) {
    for (size_t id = 0; id < logits.size(); ++id) logits[id] = id == 17 ? logits[id] : -kInfinity;
    return true;
  };
  const std::function<bool(std::span<float>)> gives_up = [](std::span<float>) { return false; };
  Batch batch{200, values, {}, std::vector<SampleRow>(4)};
  batch.rows[1].edits.custom = &only_17;
  batch.rows[2].edits.custom = &gives_up;
  batch.rows[1].logprobs = {.wanted = true, .processed = true, .top = 2};
  const Result expected = run(ref(), batch);
  CHECK(expected.tokens[1] == 17);
  CHECK(expected.tokens[2] == -1);
  for (const NamedBackend& other : other_backends()) {
    check(other.name, run(*other.backend, batch), expected);
  }
}

}  // namespace
}  // namespace octavo::test
