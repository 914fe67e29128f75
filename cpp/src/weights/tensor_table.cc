#include "weights/tensor_table.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/printable.h"

namespace octavo {

const MappedFile& TensorTable::add_file(const std::string& path) {
  return *files_.emplace_back(std::make_unique<MappedFile>(path));
}

void TensorTable::add(StoredTensor tensor) {
  const auto [position, added] = tensors_.try_emplace(tensor.name, StoredTensor{});
  if (!added) {
    throw LoadError(str_cat(tensor.file->path(), ": tensor '", printable(tensor.name),
                            "' occurs twice; expected one of each name"));
  }
  position->second = std::move(tensor);
}

const StoredTensor* TensorTable::find(std::string_view name) const {
  auto position = tensors_.find(name);
  for (size_t i = 0; position == tensors_.end() && i < prefixes_.size(); ++i) {
    if (name.starts_with(prefixes_[i])) position = tensors_.find(name.substr(prefixes_[i].size()));
  }
  return position == tensors_.end() ? nullptr : &position->second;
}

WeightTensor TensorTable::take(std::string_view name, std::span<const int64_t> shape) {
  const StoredTensor* found = find(name);
  if (found == nullptr) {
    throw LoadError(str_cat(label_, ": tensor '", printable(name), "' is missing"));
  }
  if (!std::ranges::equal(found->shape, shape)) {
    throw LoadError(str_cat(printable(name), ": shape ", shape_text(found->shape),
                            " in the file; expected ", shape_text(shape)));
  }
  if (!found->scheme) {
    throw LoadError(str_cat(printable(name), ": dtype ", printable(found->dtype), " in ",
                            found->file->file_name(),
                            "; expected F32, F16, BF16 or a GGUF form of 4 to 8 bits"));
  }
  found->file->check_size();
  found->file->will_need(found->offset, found->bytes);
  used_.insert(found->name);
  return {.name = std::string(name),
          .scheme = *found->scheme,
          .shape = found->shape,
          .data = found->file->bytes().subspan(found->offset, found->bytes)};
}

void TensorTable::release(const WeightTensor& tensor) const {
  const StoredTensor* found = find(tensor.name);
  if (found != nullptr) found->file->release(found->offset, found->bytes);
}

std::vector<std::string> TensorTable::unused() const {
  std::vector<std::string> names;  // sorted, as the map is
  for (const auto& [name, tensor] : tensors_) {
    if (!used_.contains(name)) names.push_back(name);
  }
  return names;
}

Scheme TensorTable::main_scheme() const {
  std::array<uint64_t, static_cast<size_t>(Scheme::kQ6_K) + 1> bytes{};
  for (const auto& [name, tensor] : tensors_) {
    if (tensor.scheme) bytes[static_cast<size_t>(*tensor.scheme)] += tensor.bytes;
  }
  return static_cast<Scheme>(std::ranges::max_element(bytes) - bytes.begin());
}

std::optional<uint64_t> encoded_bytes(Scheme scheme, uint64_t elements, uint64_t columns) {
  const SchemeInfo& info = scheme_info(scheme);
  const auto block_elements = static_cast<uint64_t>(info.block_elements);
  if (columns % block_elements != 0) return std::nullopt;
  return checked_multiply(elements / block_elements, static_cast<uint64_t>(info.block_bytes));
}

void check_overlaps(const std::vector<StoredTensor>& tensors) {
  std::vector<const StoredTensor*> order;
  for (const StoredTensor& tensor : tensors) {
    if (tensor.bytes != 0) order.push_back(&tensor);
  }
  std::ranges::sort(order, {}, [](const StoredTensor* tensor) { return tensor->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    const StoredTensor& before = *order[i - 1];
    if (before.offset + before.bytes <= order[i]->offset) continue;
    throw LoadError(str_cat(before.file->path(), ": tensors '", printable(before.name), "' and '",
                            printable(order[i]->name),
                            "' overlap; expected bytes of its own for each"));
  }
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (int64_t extent : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(extent);
  }
  return text + "]";
}

}  // namespace octavo
