// Steps that a back end records and replays: bit for bit those that are run word by word, whatever
// the contexts, the tokens and the blocks are meanwhile.
#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "base/check.h"
#include "ops/backends.h"
#include "ops/compare.h"
#include "ops/device_matrix.h"
#include "ops/random.h"
#include "ops/shapes.h"
#include "ops/weights.h"

namespace octavo::test {
namespace {

constexpr int32_t kHeads = 8, kKvHeads = 2, kHeadDim = 64, kBlockSize = 16, kMaxBlocks = 40;
constexpr int64_t kHidden = kHeads * kHeadDim, kIntermediate = 1024, kVocab = 999;
constexpr int64_t kQkv = (kHeads + 2 * kKvHeads) * kHeadDim;
constexpr int32_t kLongest = 23 * kBlockSize;  // tokens of a context
constexpr int32_t kBlocks = 64 * 23;           // no two of 64 sequences share one

// What a step is given: a token, a context and blocks for each sequence, of which some only pad.
struct Step {
  Step(int64_t rows, int64_t used, uint64_t seed) {
    Random random(seed);
    const std::vector<int32_t> order = random.permutation(kBlocks);
    size_t next = 0;
    for (int64_t row = 0; row < rows; ++row) {
      const bool pads = row >= used;
      const int32_t context = pads ? 0 : 1 + random.below(kLongest - 1);
      ids.push_back(pads ? 0 : random.below(kVocab));
      positions.push_back(pads ? 0 : context - 1);
      context_len.push_back(context);
      query_start.push_back(static_cast<int32_t>(row) + 1);
      std::vector<int32_t> table(kMaxBlocks, 0);
      for (int32_t i = 0; i * kBlockSize < context; ++i) table[i] = order[next++];
      slots.push_back(
          pads ? -1 : table[(context - 1) / kBlockSize] * kBlockSize + (context - 1) % kBlockSize);
      tables.insert(tables.end(), table.begin(), table.end());
    }
  }
  StepMeta meta() const {
    return {.num_tokens = query_start.back(),
            .block_size = kBlockSize,
            .query_start = query_start,
            .context_len = context_len,
            .block_tables = tables,
            .max_blocks = kMaxBlocks};
  }
  std::vector<int32_t> ids, positions, slots, context_len, tables, query_start = {0};
};

// One layer and its head, with everything that it reads and writes at fixed places.
class TinyLayer {
 public:
  TinyLayer(Backend& backend, DType dtype, int64_t rows)
      : backend_(backend),
        rows_(rows),
        embedding_(pack(kVocab, kHidden, dtype, 1)),
        qkv_weight_(pack(kQkv, kHidden, dtype, 2)),
        o_weight_(pack(kHidden, kHidden, dtype, 3)),
        gate_up_(pack(2 * kIntermediate, kHidden, dtype, 4)),
        down_(pack(kHidden, kIntermediate, dtype, 5)),
        norm_(backend, std::vector<float>(kHidden, 1.5f)),
        cos_sin_(backend, kMaxBlocks * kBlockSize, kHeadDim,
                 Random(6).normals(kMaxBlocks * kBlockSize * kHeadDim, 0.7)),
        ids_(backend, std::vector<int32_t>(static_cast<size_t>(rows))),
        positions_(backend, std::vector<int32_t>(static_cast<size_t>(rows))),
        slots_(backend, std::vector<int32_t>(static_cast<size_t>(rows))),
        hidden_(matrix(kHidden, dtype)),
        normed_(matrix(kHidden, dtype)),
        qkv_(matrix(kQkv, dtype)),
        attended_(matrix(kHidden, dtype)),
        scratch_(matrix(2 * kIntermediate, dtype)),
        logits_(matrix(kVocab, DType::kFloat32)),
        shape_{kBlockSize, kKvHeads, kHeadDim, dtype},
        cache_(backend.allocate(backend.kv_block_bytes(shape_) * kBlocks)) {
    fill_cache(dtype);
  }

  // Logits, and what the step has stored: attention of it is part of the logits.
  std::vector<float> run(const Step& step, bool replayed) {
    backend_.copy_to_device(ids_.view, step.ids.data());
    backend_.copy_to_device(positions_.view, step.positions.data());
    backend_.copy_to_device(slots_.view, step.slots.data());
    backend_.begin_step(step.meta());
    if (replayed) {
      backend_.replay({.rows = rows_, .block_columns = kMaxBlocks}, [this] { words(); });
    } else {
      words();
    }
    return logits_.download();
  }

 private:
  std::unique_ptr<PackedWeight> pack(int64_t out, int64_t in, DType dtype, uint64_t seed) const {
    const double scale = 1 / std::sqrt(static_cast<double>(in));
    return StoredMatrix(out, in, Random(seed).normals(out * in, scale)).pack(backend_, dtype);
  }
  DeviceMatrix matrix(int64_t cols, DType dtype) const {
    return DeviceMatrix(backend_, rows_, cols, Layout::kDense, dtype);
  }
  KvLayer kv() const { return {.data = cache_.data(), .shape = shape_}; }

  void fill_cache(DType dtype) {
    constexpr int64_t kTokens = int64_t{kBlocks} * kBlockSize;
    static const std::vector<float> values = Random(7).nearly_normals(kTokens * kQkv);
    const DeviceMatrix all(backend_, kTokens, kQkv, values, Layout::kDense, dtype);
    std::vector<int32_t> slots(kTokens);
    std::iota(slots.begin(), slots.end(), 0);
    const DeviceVector<int32_t> device_slots(backend_, slots);
    store(all, Tensor(), Tensor(), device_slots.view);
  }

  void store(const DeviceMatrix& qkv, const Tensor& cos_sin, const Tensor& rows,
             const Tensor& slots) {
    const int64_t keys = kHeads * kHeadDim, values = keys + kKvHeads * kHeadDim;
    backend_.rope_store({.q = qkv.view.columns(0, keys).split_last(kHeads),
                         .k = qkv.view.columns(keys, values).split_last(kKvHeads),
                         .v = qkv.view.columns(values, kQkv).split_last(kKvHeads),
                         .cos_sin = cos_sin,
                         .cos_sin_rows = rows,
                         .slots = slots,
                         .kv = kv()});
  }

  void words() {
    const Tensor hidden = hidden_.view, normed = normed_.view;
    backend_.embed({.ids = ids_.view, .table = embedding_.get(), .out = hidden});
    backend_.rms_norm({.x = hidden, .weight = norm_.view, .eps = 1e-5f, .out = normed});
    backend_.linear({.x = normed, .weight = qkv_weight_.get(), .out = qkv_.view});
    store(qkv_, cos_sin_.view, positions_.view, slots_.view);
    backend_.attention({.q = qkv_.view.columns(0, kHidden).split_last(kHeads),
                        .kv = kv(),
                        .scale = 0.125f,
                        .out = attended_.view});
    backend_.linear(
        {.x = attended_.view, .weight = o_weight_.get(), .residual = hidden, .out = hidden});
    backend_.rms_norm({.x = hidden, .weight = norm_.view, .eps = 1e-5f, .out = normed});
    backend_.gated_mlp({.x = normed,
                        .gate_up = gate_up_.get(),
                        .down = down_.get(),
                        .activation = Activation::kSilu,
                        .scratch = scratch_.view,
                        .residual = hidden,
                        .out = hidden});
    backend_.linear({.x = hidden, .weight = embedding_.get(), .out = logits_.view});
  }

  Backend& backend_;
  int64_t rows_;
  std::unique_ptr<PackedWeight> embedding_, qkv_weight_, o_weight_, gate_up_, down_;
  DeviceVector<float> norm_;  // [hidden]
  DeviceMatrix cos_sin_;      // [positions, head_dim]
  DeviceVector<int32_t> ids_, positions_, slots_;
  DeviceMatrix hidden_, normed_, qkv_, attended_, scratch_, logits_;
  KvShape shape_;
  Buffer cache_;
};

void check_rows(Backend& backend, const std::string& name, DType dtype, int64_t rows) {
  TinyLayer replayed(backend, dtype, rows), eager(backend, dtype, rows);
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    const Step step(rows, rows - (on_cuda() && seed % 2 == 0 ? rows / 3 : 0), seed);
    const std::vector<float> expected = eager.run(step, false);
    check_same_bits(str_cat(name, ": ", dtype_name(dtype), ", ", rows, " rows, step ", seed),
                    replayed.run(step, true), expected);
  }
  backend.forget_replays();
  const Step last(rows, rows, 9);
  const std::vector<float> expected = eager.run(last, false);
  for (int i = 0; i < 3; ++i) {
    check_same_bits(name + ": after all was forgotten", replayed.run(last, true), expected);
  }
  backend.forget_replays();  // the layer goes
}

TEST_CASE("a replayed step has the bits of one that is run") {
  for (const NamedBackend& other : other_backends()) {
    if (!on_cuda() && other.name != other_backends().front().name) continue;
    for (DType dtype : activation_dtypes()) {
      for (int64_t rows : {1, 2, 4, 8, 16, 40, 64})
        check_rows(*other.backend, other.name, dtype, rows);
    }
  }
}

TEST_CASE("steps of several sizes and of longer tables take turns") {
  if (!on_cuda()) return;
  Backend& cuda = *other_backends().front().backend;
  TinyLayer small(cuda, DType::kBFloat16, 8), large(cuda, DType::kBFloat16, 64);
  TinyLayer small_eager(cuda, DType::kBFloat16, 8), large_eager(cuda, DType::kBFloat16, 64);
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const Step few(8, 8, seed), many(64, 60, seed + 100);
    const std::vector<float> expected_few = small_eager.run(few, false);
    const std::vector<float> expected_many = large_eager.run(many, false);
    check_same_bits(str_cat("few, turn ", seed), small.run(few, true), expected_few);
    check_same_bits(str_cat("many, turn ", seed), large.run(many, true), expected_many);
  }
  cuda.forget_replays();
}

TEST_CASE("a step that fails while it is recorded leaves the back end in order") {
  if (!on_cuda()) return;
  Backend& cuda = *other_backends().front().backend;
  TinyLayer layer(cuda, DType::kFloat16, 2);
  const Step step(2, 2, 3);
  const std::vector<float> expected = layer.run(step, false);
  const ReplayKey key{.rows = 2, .block_columns = 77};
  cuda.replay(key, [] {});
  CHECK_THROWS_AS(cuda.replay(key, [] { throw InternalError("on purpose"); }), InternalError);
  check_same_bits("eager after it", layer.run(step, false), expected);
  for (int i = 0; i < 3; ++i) check_same_bits("replayed after it", layer.run(step, true), expected);
  cuda.forget_replays();
}

}  // namespace
}  // namespace octavo::test
