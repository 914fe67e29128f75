// The GGUF format, versions 2 and 3: metadata by key, then names, extents, types and offsets of the
// tensors, then their data. Everything is checked against the file's size. Used on the loading
// thread, and by read_gguf_metadata on any.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "octavo/gguf.h"
#include "weights/tensor_table.h"

namespace octavo {

using GgufMetadata = std::map<std::string, GgufValue>;

struct GgufHeader {
  GgufMetadata metadata;
  std::vector<StoredTensor> tensors;  // with the file's names
};

// Throws LoadError that names the file and the key or tensor.
GgufHeader read_gguf(const MappedFile& file);

}  // namespace octavo
