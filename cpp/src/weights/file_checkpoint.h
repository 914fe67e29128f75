// A checkpoint whose tensors lie in mapped files. Owned by the loading thread.
#pragma once

#include <memory>
#include <string>

#include "weights/tensor_table.h"

namespace octavo {

class FileCheckpoint final : public Checkpoint {
 public:
  // Throws LoadError.
  static std::unique_ptr<FileCheckpoint> open_safetensors(const std::string& directory);
  static std::unique_ptr<FileCheckpoint> open_gguf(const std::string& path);

  const TensorTable& table() const { return table_; }
  Scheme main_scheme() const override { return table_.main_scheme(); }
  bool interleaved_rotary() const override { return interleaved_rotary_; }
  bool conv1d_transposed() const override { return conv1d_transposed_; }
  bool has(std::string_view name) const override { return table_.has(name); }
  WeightTensor take(std::string_view name, std::span<const int64_t> shape) override {
    return table_.take(name, shape);
  }
  void release(const WeightTensor& tensor) override { table_.release(tensor); }
  std::vector<std::string> unused() const override { return table_.unused(); }

 private:
  FileCheckpoint(Json config, std::string source, TensorTable table);

  TensorTable table_;
  bool interleaved_rotary_ = false;
  bool conv1d_transposed_ = true;
};

// The object in `directory`/config.json. Throws LoadError.
Json read_config(const std::string& directory);
// The first of config's "architectures"; `source` names the file in the message.
std::string read_architecture(const Json& config, const std::string& source);

}  // namespace octavo
