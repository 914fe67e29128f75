#include "weights/file_checkpoint.h"

#include "base/check.h"
#include "weights/gguf_config.h"
#include "weights/gguf_names.h"
#include "weights/safetensors.h"

namespace octavo {

Json read_config(const std::string& directory) {
  const std::string path = directory + "/config.json";
  Json config = parse_json(read_text_file(path), path);
  if (!config.is_object()) throw LoadError(str_cat(path, ": is not an object; expected one"));
  return config;
}

std::string read_architecture(const Json& config, const std::string& source) {
  const auto list = config.find("architectures");
  if (list == config.end() || !list->is_array() || list->empty() || !list->front().is_string()) {
    throw LoadError(str_cat(source,
                            ": 'architectures' is missing; expected a list that begins with "
                            "a name such as \"LlamaForCausalLM\""));
  }
  return list->front().get<std::string>();
}

FileCheckpoint::FileCheckpoint(Json config, std::string source, TensorTable table)
    : table_(std::move(table)) {
  architecture_ = read_architecture(config, source);
  config_ = std::move(config);
}

std::unique_ptr<FileCheckpoint> FileCheckpoint::open_safetensors(const std::string& directory) {
  Json config = read_config(directory);
  return std::unique_ptr<FileCheckpoint>(new FileCheckpoint(
      std::move(config), directory + "/config.json", read_safetensors_directory(directory)));
}

std::unique_ptr<FileCheckpoint> FileCheckpoint::open_gguf(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  TensorTable table(name);
  GgufHeader header = read_gguf(table.add_file(path));
  const std::string architecture = gguf_architecture(header.metadata, path);
  for (StoredTensor& tensor : header.tensors) {
    tensor.name = hugging_face_name(architecture, tensor.name);
    table.add(std::move(tensor));
  }
  Json config = gguf_config(header.metadata, table, path);
  std::unique_ptr<FileCheckpoint> checkpoint(
      new FileCheckpoint(std::move(config), path, std::move(table)));
  checkpoint->interleaved_rotary_ = architecture == "llama";
  checkpoint->conv1d_transposed_ = false;
  return checkpoint;
}

}  // namespace octavo
