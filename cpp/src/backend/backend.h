// THE SEAM: what a device must be able to do. Models speak only these words. A back end is owned by
// the engine and used by its step thread alone. Fused words have default compositions of plain ones
// in defaults.cc, which are also the tests of a fused kernel.
//
// In a step there is no allocation outside the arena, no waiting for the device, and no reading of
// device memory by the host.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "backend/op_args.h"
#include "backend/packed_weight.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace octavo {

struct DeviceInfo {
  std::string name;  // "cpu", "ref"
  std::string isa;   // the instruction set of the kernels
  int32_t num_threads = 1;
};

// The memory of a device that has its own.
struct DeviceMemory {
  int64_t free_at_start = 0;  // bytes, when the back end was made
  int64_t free = 0;           // bytes, now
};

// What the launches of two steps have in common when one may stand for the other.
struct ReplayKey {
  int64_t rows = 0;           // sequences, of one row each
  int64_t block_columns = 0;  // of the block tables
  auto operator<=>(const ReplayKey&) const = default;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual DeviceInfo info() const = 0;
  // Of all activations, for weights of `weights`.
  virtual DType activation_dtype(DType weights) const = 0;

  // None: the device's memory is the host's.
  virtual std::optional<DeviceMemory> memory() const { return std::nullopt; }
  // Rows of logits that may exist at a time: enough for the head's weights to be read few times.
  virtual int64_t logits_rows() const { return 64; }

  // Zeroed device memory, aligned to Arena::kAlignment. Throws OutOfMemory.
  virtual Buffer allocate(size_t bytes) = 0;
  virtual void copy_to_device(const Tensor& target, const void* source) = 0;  // contiguous
  virtual void copy_to_host(void* target, const Tensor& source) = 0;          // contiguous; waits

  // Stacks the segments' rows into one weight, in the device's own layout. All segments have the
  // same in_features.
  virtual std::unique_ptr<PackedWeight> pack(std::span<const WeightSegment> segments,
                                             const WeightTarget& target) = 0;

  // Bytes of one block's keys and values of one layer.
  virtual size_t kv_block_bytes(const KvShape& shape) const = 0;

  // The one place where the host plans the attention of a step.
  virtual void begin_step(const StepMeta& meta) = 0;

  // To how many rows a step of `rows` sequences with one row each is padded, so that few different
  // steps are recorded; 0: it is not recorded, and not padded.
  virtual int64_t padded_rows(int64_t rows) const {
    static_cast<void>(rows);
    return 0;
  }
  // Runs `body`, the words of a step between begin_step and sampling, or replays what it launched
  // when it was recorded under this key. Under one key all pointers and shapes are the same, but
  // for what begin_step was given.
  virtual void replay(const ReplayKey& key, const std::function<void()>& body) {
    static_cast<void>(key);
    body();
  }
  // Forgets what was recorded: memory that it points to is about to go.
  virtual void forget_replays() {}

  // Plain words.
  virtual void embed(const EmbedArgs& args) = 0;
  virtual void linear(const LinearArgs& args) = 0;
  virtual void rms_norm(const RmsNormArgs& args) = 0;
  virtual void layer_norm(const LayerNormArgs& args) = 0;
  virtual void gate(const GateArgs& args) = 0;
  virtual void rope_store(const RopeStoreArgs& args) = 0;
  virtual void attention(const AttentionArgs& args) = 0;
  virtual void gather_rows(const GatherRowsArgs& args) = 0;
  virtual void sample(const SampleArgs& args) = 0;
  // Copies whole blocks of every layer's cache, in order, each before the step's first store.
  virtual void copy_blocks(std::span<const KvLayer> layers, std::span<const BlockCopy> copies) = 0;

  // Fused words, with default compositions.
  virtual void gated_mlp(const GatedMlpArgs& args);
};

// Backend::allocate, whose OutOfMemory begins with `what` the memory is for.
Buffer allocate_for(std::string_view what, Backend& backend, size_t bytes);

// Checks the shapes and dtypes of a word's arguments; throws InternalError that begins with its
// name.
void check_args(const EmbedArgs& args);
void check_args(const LinearArgs& args);
void check_args(const RmsNormArgs& args);
void check_args(const LayerNormArgs& args);
void check_args(const GateArgs& args);
void check_args(const GatedMlpArgs& args);
void check_args(const RopeStoreArgs& args);
void check_args(const AttentionArgs& args);
void check_args(const GatherRowsArgs& args);
void check_args(const SampleArgs& args);

}  // namespace octavo
