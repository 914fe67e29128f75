// The configuration of a model in Hugging Face's form (config.json), built from a GGUF file's
// metadata. Used by open_checkpoint on the loading thread.
#pragma once

#include "base/json.h"
#include "weights/gguf_reader.h"

namespace octavo {

// `table` holds the tensors under their Hugging Face names: whether the head is tied and which
// biases exist is not in the metadata. Throws LoadError that names the file and the key.
Json gguf_config(const GgufMetadata& metadata, const TensorTable& table, const std::string& path);

// The GGUF architecture, such as "llama"; throws LoadError when the file does not say.
std::string gguf_architecture(const GgufMetadata& metadata, const std::string& path);

}  // namespace octavo
