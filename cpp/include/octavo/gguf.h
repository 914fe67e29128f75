// The metadata of a GGUF file: the tokenizer, the chat template and the hyperparameters that it
// carries. Reads the header alone, through a mapping of the file; callable from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "octavo/export.h"

namespace octavo {

// Integers widen to int64_t (values above its range are refused), floats to double. Nested arrays
// do not occur in practice and are refused. Keys are printable ASCII; strings are the file's bytes,
// which should be UTF-8 but are not checked.
using GgufValue = std::variant<bool, int64_t, double, std::string, std::vector<bool>,
                               std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;

// Throws LoadError when the file is missing, truncated or malformed.
OCTAVO_EXPORT std::map<std::string, GgufValue> read_gguf_metadata(const std::string& path);

}  // namespace octavo
