#include "weights/dummy_checkpoint.h"

#include <algorithm>
#include <array>
#include <new>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/printable.h"
#include "tensor/dtype.h"
#include "weights/file_checkpoint.h"

namespace octavo {
namespace {

DType dtype_of(Scheme scheme) {
  if (scheme == Scheme::kF32) return DType::kFloat32;
  return scheme == Scheme::kF16 ? DType::kFloat16 : DType::kBFloat16;
}

Scheme configured_scheme(const Json& config) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto found = config.find(key);
    if (found == config.end()) continue;
    if (*found == "float32") return Scheme::kF32;
    if (*found == "float16") return Scheme::kF16;
  }
  return Scheme::kBF16;
}

// A seed of noise: FNV-1a, but never 0.
uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return std::max<uint64_t>(hash, 1);
}

void fill(float value, DType dtype, std::span<std::byte> out) {
  std::array<float, 1024> values;
  values.fill(value);
  const size_t size = dtype_size(dtype), elements = out.size() / size;
  for (size_t done = 0; done < elements; done += values.size()) {
    convert_from_float(values.data(), std::min(values.size(), elements - done), dtype,
                       out.data() + done * size);
  }
}

}  // namespace

DummyCheckpoint::DummyCheckpoint(const std::string& directory) {
  config_ = read_config(directory);
  architecture_ = read_architecture(config_, directory + "/config.json");
  scheme_ = configured_scheme(config_);
}

WeightTensor DummyCheckpoint::take(std::string_view name, std::span<const int64_t> shape) {
  const DType dtype = dtype_of(scheme_);
  const std::optional<uint64_t> elements = checked_elements(shape);
  const std::optional<uint64_t> bytes =
      elements ? checked_multiply(*elements, dtype_size(dtype)) : std::nullopt;
  WeightTensor tensor{.name = std::string(name),
                      .scheme = scheme_,
                      .shape = {shape.begin(), shape.end()},
                      .data = {}};
  try {
    if (!bytes || *bytes > PTRDIFF_MAX) throw std::bad_alloc();
    const bool zeros = name.ends_with(".bias");
    if (shape.size() >= 2 && !zeros) {
      tensor.noise_seed = hash_name(name);
      return tensor;
    }
    std::vector<std::byte>& data = taken_[tensor.name];
    data.resize(*bytes);
    fill(zeros ? 0.0f : 1.0f, dtype, data);
    tensor.data = data;
  } catch (const std::bad_alloc&) {
    throw OutOfMemory(str_cat(printable(name), ": random weights of shape ", shape_text(shape),
                              "; expected fewer elements"));
  }
  return tensor;
}

}  // namespace octavo
