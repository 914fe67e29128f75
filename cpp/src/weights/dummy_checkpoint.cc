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

uint64_t hash_name(std::string_view name) {  // FNV-1a
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

uint64_t mix(uint64_t state) {  // the finaliser of splitmix64
  state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
  state = (state ^ (state >> 27)) * 0x94d049bb133111ebu;
  return state ^ (state >> 31);
}

// The sum of four uniform 16-bit numbers, centred and scaled: close to normal, and cheap.
float noise(uint64_t seed, uint64_t index) {
  constexpr float kScale = 0.02f * 1.7320508f / 65536.0f;  // the sum's deviation is 65536 / sqrt(3)
  const uint64_t bits = mix(seed + index * 0x9e3779b97f4a7c15u);
  const uint64_t sum =
      (bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48);
  return (static_cast<float>(sum) - 131070.0f) * kScale;
}

void fill(std::string_view name, bool vector, DType dtype, uint64_t elements, std::byte* out) {
  const uint64_t seed = hash_name(name);
  const bool zeros = name.ends_with(".bias");
  std::array<float, 1024> values;
  values.fill(zeros ? 0.0f : 1.0f);
  for (uint64_t done = 0; done < elements; done += values.size()) {
    const size_t part = static_cast<size_t>(std::min<uint64_t>(values.size(), elements - done));
    if (!vector && !zeros) {
      for (size_t i = 0; i < part; ++i) values[i] = noise(seed, done + i);
    }
    convert_from_float(values.data(), part, dtype, out + done * dtype_size(dtype));
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
  std::vector<std::byte>& data = taken_[std::string(name)];
  try {
    if (!bytes || *bytes > data.max_size()) throw std::bad_alloc();
    data.resize(*bytes);
  } catch (const std::bad_alloc&) {
    throw OutOfMemory(str_cat(printable(name), ": random weights of shape ", shape_text(shape),
                              "; expected fewer elements"));
  }
  fill(name, shape.size() < 2, dtype, *elements, data.data());
  return {std::string(name), scheme_, {shape.begin(), shape.end()}, data};
}

}  // namespace octavo
