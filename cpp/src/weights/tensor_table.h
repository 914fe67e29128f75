// The named tensors of one checkpoint's files, whatever the format: filled by a reader, which has
// checked every extent and offset, and then looked up and marked by the checkpoint that owns it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mmap.h"
#include "quant/scheme.h"
#include "weights/checkpoint.h"

namespace octavo {

// One tensor, where it lies.
struct StoredTensor {
  std::string name;
  std::string dtype;             // as the file spells it
  std::optional<Scheme> scheme;  // none: an encoding that cannot be decoded
  std::vector<int64_t> shape;    // outermost first
  const MappedFile* file = nullptr;
  uint64_t offset = 0;  // in the file
  uint64_t bytes = 0;
};

class TensorTable {
 public:
  // `label` names the table in messages, such as "model.safetensors".
  explicit TensorTable(std::string label) : label_(std::move(label)) {}

  const MappedFile& add_file(const std::string& path);
  // Throws LoadError for a name that is there already.
  void add(StoredTensor tensor);
  // A prefix of the base model that some checkpoints leave out, such as "transformer.": a name that
  // begins with it is also found without it.
  void add_optional_prefix(std::string prefix) { prefixes_.push_back(std::move(prefix)); }

  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }
  bool has(std::string_view name) const { return find(name) != nullptr; }
  WeightTensor take(std::string_view name, std::span<const int64_t> shape);
  void release(const WeightTensor& tensor) const;
  std::vector<std::string> unused() const;
  Scheme main_scheme() const;

 private:
  const StoredTensor* find(std::string_view name) const;

  std::string label_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::vector<std::string> prefixes_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
  std::set<std::string> used_;  // names in `tensors_`
};

// The bytes of `elements` elements in rows of `columns`; no value: they are not whole blocks, or
// their number does not fit.
std::optional<uint64_t> encoded_bytes(Scheme scheme, uint64_t elements, uint64_t columns);

// Throws LoadError when two tensors of one file share bytes.
void check_overlaps(const std::vector<StoredTensor>& tensors);

// "[2, 3]"
std::string shape_text(std::span<const int64_t> shape);

}  // namespace octavo
