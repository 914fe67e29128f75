// Steps that a device pads, records and replays give what they give unpadded.
#include "runner/model_runner.h"

#include <doctest/doctest.h>

#include <map>

#include "backend/registry.h"
#include "models/registry.h"
#include "tiny_engine.h"
#include "weights/checkpoint.h"

namespace octavo {
namespace {

// The reference, with steps padded to a multiple of four rows; it knows whether what a device would
// replay is the same each time: where the inputs lie under one key.
class PaddingBackend final : public Backend {
 public:
  DeviceInfo info() const override { return ref_->info(); }
  DType activation_dtype(DType weights) const override { return ref_->activation_dtype(weights); }
  Buffer allocate(size_t bytes) override { return ref_->allocate(bytes); }
  void copy_to_device(const Tensor& target, const void* source) override {
    ref_->copy_to_device(target, source);
  }
  void copy_to_host(void* target, const Tensor& source) override {
    ref_->copy_to_host(target, source);
  }
  std::unique_ptr<PackedWeight> pack(std::span<const WeightSegment> segments,
                                     const WeightTarget& target) override {
    return ref_->pack(segments, target);
  }
  size_t kv_block_bytes(const KvShape& shape) const override { return ref_->kv_block_bytes(shape); }
  void begin_step(const StepMeta& meta) override {
    ref_->begin_step(meta);
    block_columns = meta.max_blocks;
  }
  int64_t padded_rows(int64_t rows) const override { return (rows + 3) / 4 * 4; }
  void replay(const ReplayKey& key, const std::function<void()>& body) override {
    key_ = key;
    recording_ = true;
    body();
    recording_ = false;
    ++replays;
  }
  void forget_replays() override { places_.clear(); }
  void embed(const EmbedArgs& args) override {
    if (recording_) {
      CHECK(args.ids.dim(0) == key_.rows);
      CHECK(block_columns == key_.block_columns);
      const auto [place, first] =
          places_.emplace(key_, std::pair{args.ids.data(), args.out.data()});
      CHECK(place->second == std::pair{args.ids.data(), args.out.data()});
    }
    ref_->embed(args);
  }
  void linear(const LinearArgs& args) override { ref_->linear(args); }
  void rms_norm(const RmsNormArgs& args) override { ref_->rms_norm(args); }
  void layer_norm(const LayerNormArgs& args) override { ref_->layer_norm(args); }
  void gate(const GateArgs& args) override { ref_->gate(args); }
  void rope_store(const RopeStoreArgs& args) override { ref_->rope_store(args); }
  void attention(const AttentionArgs& args) override { ref_->attention(args); }
  void gather_rows(const GatherRowsArgs& args) override { ref_->gather_rows(args); }
  void sample(const SampleArgs& args) override { ref_->sample(args); }
  void copy_blocks(std::span<const KvLayer> layers, std::span<const BlockCopy> copies) override {
    ref_->copy_blocks(layers, copies);
  }

  int replays = 0;
  int64_t block_columns = 0;

 private:
  std::unique_ptr<Backend> ref_ = make_ref_backend();
  bool recording_ = false;
  ReplayKey key_;
  std::map<ReplayKey, std::pair<void*, void*>> places_;
};

constexpr int32_t kBlock = 16, kBlocksEach = 3;

// Sequences of different lengths, decoded greedily on a back end.
std::vector<std::vector<int32_t>> decode(Backend& backend, int32_t sequences, int32_t steps) {
  const test::TinyModel tiny;
  const auto checkpoint = open_checkpoint(tiny.config.model, "dummy");
  WeightLoader loader(backend, *checkpoint, DType::kFloat32);
  ModelRunner runner(backend,
                     make_model(loader, {.max_batch_tokens = 256, .max_num_seqs = sequences}),
                     DType::kFloat32, DType::kFloat32, {.max_tokens = 256, .block_size = kBlock});
  runner.allocate_kv(sequences * kBlocksEach);
  std::vector<std::vector<int32_t>> tokens, tables;
  for (int32_t i = 0; i < sequences; ++i) {
    tokens.push_back(test::prompt_of(3 + 5 * i, i));
    tables.push_back({i * kBlocksEach + 2, i * kBlocksEach, i * kBlocksEach + 1});
  }
  std::vector<int32_t> computed(static_cast<size_t>(sequences), 0);
  for (int32_t step = 0; step < steps; ++step) {
    StepPlan plan;
    std::vector<int32_t> selected;
    for (size_t i = 0; i < tokens.size(); ++i) {
      const auto length = static_cast<int32_t>(tokens[i].size());
      const std::span<const int32_t> due =
          std::span(tokens[i]).subspan(static_cast<size_t>(computed[i]));
      plan.sequences.push_back({.sequence_id = static_cast<int64_t>(i),
                                .tokens = due,
                                .num_computed = computed[i],
                                .prompt_len = length,
                                .block_table = std::span(tables[i]).first(
                                    static_cast<size_t>((length - 1) / kBlock + 1)),
                                .samples = true});
      plan.num_tokens += static_cast<int32_t>(due.size());
      selected.push_back(plan.num_tokens - 1);
      computed[i] = length;
    }
    const std::vector<SampleRow> rows(tokens.size());
    runner.launch(plan, selected, rows, [] {});
    const std::span<const int32_t> ids = runner.collect();
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i].push_back(ids[i]);
  }
  return tokens;
}

TEST_CASE("a padded step computes what the step computes") {
  for (const int32_t sequences : {1, 3, 4, 5}) {
    PaddingBackend padding;
    const auto plain = make_ref_backend();
    CHECK(decode(padding, sequences, 18) == decode(*plain, sequences, 18));
    CHECK(padding.replays == 17);  // all but the prompts' step
  }
}

}  // namespace
}  // namespace octavo
