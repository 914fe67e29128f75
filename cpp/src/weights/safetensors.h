// The safetensors format: eight bytes of header length, a JSON header of names, dtypes, shapes and
// byte ranges, then the data. Used by open_checkpoint on the loading thread.
#pragma once

#include <string>
#include <vector>

#include "weights/tensor_table.h"

namespace octavo {

// The tensors of one file. Everything in the header is checked against the file's size; throws
// LoadError that names the file and the tensor.
std::vector<StoredTensor> read_safetensors(const MappedFile& file);

// The tensors of a directory's model.safetensors, or of the shards of its
// model.safetensors.index.json.
TensorTable read_safetensors_directory(const std::string& directory);

}  // namespace octavo
