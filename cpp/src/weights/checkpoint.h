// A model on disk, whatever its files: a configuration in Hugging Face's form and named tensors
// with the names of the Hugging Face checkpoint. Opened once by the loading thread; it must outlive
// what was taken from it, until that is packed.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "quant/scheme.h"

namespace octavo {

// One tensor as it lies in a mapped file, or one of noise.
struct WeightTensor {
  std::string name;
  Scheme scheme = Scheme::kF32;
  std::vector<int64_t> shape;       // outermost first, as in Hugging Face's checkpoints
  std::span<const std::byte> data;  // empty where it is noise
  uint64_t noise_seed = 0;          // of QuantizedMatrix

  // All but the last dimension are rows.
  QuantizedMatrix matrix() const;
};

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  const Json& config() const { return config_; }
  // The architecture's name, such as "LlamaForCausalLM".
  const std::string& architecture() const { return architecture_; }
  // The encoding of most of the weights' bytes: what `dtype="auto"` looks at.
  virtual Scheme main_scheme() const = 0;
  // The rows of Llama's q and k are permuted, as GGUF stores them (interleaved rotary pairs).
  virtual bool interleaved_rotary() const { return false; }
  // GPT-2's projections are stored [in, out] (Conv1D), as in Hugging Face's checkpoints.
  virtual bool conv1d_transposed() const { return true; }

  virtual bool has(std::string_view name) const = 0;
  // The tensor of that name, marked as used. Throws LoadError that names it when it is missing, its
  // shape or dtype is another, or its file has shrunk since it was opened.
  virtual WeightTensor take(std::string_view name, std::span<const int64_t> shape) = 0;
  WeightTensor take(std::string_view name, std::initializer_list<int64_t> shape) {
    return take(name, std::span<const int64_t>(shape.begin(), shape.size()));
  }
  // The tensor, which was taken, will not be read again: its memory may be given back.
  virtual void release(const WeightTensor& /*tensor*/) {}
  // Names of tensors that were never taken, sorted.
  virtual std::vector<std::string> unused() const = 0;

 protected:
  Json config_;
  std::string architecture_;
};

// Opens a directory with config.json and safetensors, or a .gguf file. load_format: auto,
// safetensors, gguf, dummy. Throws LoadError; InvalidArgument for another load_format.
std::unique_ptr<Checkpoint> open_checkpoint(const std::string& path, std::string_view load_format);

}  // namespace octavo
