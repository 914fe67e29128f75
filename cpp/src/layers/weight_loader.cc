#include "layers/weight_loader.h"

#include "base/check.h"
#include "quant/decode.h"

namespace octavo {
namespace {

// Where the rows of Hugging Face's order lie in a file with interleaved rotary pairs: within a
// head, element s * half + j of the pair (s, j) is stored as 2 * j + s.
std::vector<int32_t> interleaved_order(int64_t rows, int64_t heads) {
  std::vector<int32_t> order(static_cast<size_t>(rows));
  const int64_t head_dim = rows / heads, half = head_dim / 2;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = row / head_dim, inside = row % head_dim;
    order[static_cast<size_t>(row)] =
        static_cast<int32_t>(head * head_dim + 2 * (inside % half) + inside / half);
  }
  return order;
}

}  // namespace

std::shared_ptr<const PackedWeight> WeightLoader::pack(const std::vector<WeightTensor>& tensors,
                                                       const std::vector<WeightSegment>& segments,
                                                       const WeightTarget& target) {
  std::shared_ptr<const PackedWeight> packed = backend_.pack(segments, target);
  for (const WeightTensor& tensor : tensors) checkpoint_.release(tensor);
  num_parameters_ += packed->out_features() * packed->in_features();
  weight_bytes_ += static_cast<int64_t>(packed->bytes());
  return packed;
}

Buffer WeightLoader::upload(const std::vector<float>& values) {
  if (values.empty()) return {};
  const auto size = static_cast<int64_t>(values.size());
  Buffer buffer = backend_.allocate(values.size() * sizeof(float));
  backend_.copy_to_device(Tensor(buffer.data(), DType::kFloat32, {size}), values.data());
  weight_bytes_ += static_cast<int64_t>(buffer.bytes());
  return buffer;
}

void WeightLoader::append_vector(const std::string& name, int64_t size,
                                 const std::vector<int32_t>& order, std::vector<float>& out) {
  const WeightTensor tensor = checkpoint_.take(name, {size});
  QuantizedMatrix matrix = tensor.matrix();
  std::vector<float> values(static_cast<size_t>(size));
  decode_row(matrix, 0, values.data());
  for (size_t i = 0; i < values.size(); ++i) {
    out.push_back(order.empty() ? values[i] : values[static_cast<size_t>(order[i])]);
  }
  num_parameters_ += size;
}

Linear WeightLoader::linear(const std::vector<LinearPart>& parts, int64_t in_features, bool bias) {
  std::vector<WeightTensor> tensors;
  std::vector<WeightSegment> segments;
  std::vector<float> biases;
  for (const LinearPart& part : parts) {
    const WeightTensor& tensor = tensors.emplace_back(
        checkpoint_.take(part.name + ".weight", {part.out_features, in_features}));
    WeightSegment segment{.matrix = tensor.matrix()};
    if (part.rotary_heads != 0 && checkpoint_.interleaved_rotary()) {
      segment.row_order = interleaved_order(part.out_features, part.rotary_heads);
    }
    if (bias) append_vector(part.name + ".bias", part.out_features, segment.row_order, biases);
    segments.push_back(std::move(segment));
  }
  return Linear(pack(tensors, segments, target_), upload(biases));
}

Linear WeightLoader::conv1d(const std::string& name, int64_t in_features, int64_t out_features) {
  const bool transposed = checkpoint_.conv1d_transposed();
  const WeightTensor tensor = transposed
                                  ? checkpoint_.take(name + ".weight", {in_features, out_features})
                                  : checkpoint_.take(name + ".weight", {out_features, in_features});
  std::vector<WeightSegment> segments;
  segments.push_back({.matrix = tensor.matrix(), .row_order = {}, .transposed = transposed});
  std::vector<float> bias;
  append_vector(name + ".bias", out_features, {}, bias);
  return Linear(pack({tensor}, segments, target_), upload(bias));
}

Embedding WeightLoader::embedding(const std::string& name, int64_t rows, int64_t dim,
                                  int32_t offset) {
  const WeightTensor tensor = checkpoint_.take(name, {rows, dim});
  std::vector<WeightSegment> segments;
  segments.push_back({.matrix = tensor.matrix()});
  // A table is read, not multiplied: it is not quantized, though it may be tied to the head.
  WeightTarget target = target_;
  if (target.integers == IntegerWeights::kInt8) target.integers = IntegerWeights::kKeep;
  return Embedding(pack({tensor}, segments, target), offset);
}

Norm WeightLoader::rms_norm(const std::string& name, int64_t hidden, float eps) {
  std::vector<float> weight;
  append_vector(name + ".weight", hidden, {}, weight);
  return Norm(NormKind::kRms, hidden, eps, upload(weight), Buffer());
}

Norm WeightLoader::layer_norm(const std::string& name, int64_t hidden, float eps, bool affine) {
  std::vector<float> weight, bias;
  if (!affine) {
    weight.assign(static_cast<size_t>(hidden), 1.0f);
  } else {
    append_vector(name + ".weight", hidden, {}, weight);
    if (checkpoint_.has(name + ".bias")) append_vector(name + ".bias", hidden, {}, bias);
  }
  return Norm(NormKind::kLayer, hidden, eps, upload(weight), upload(bias));
}

std::vector<float> WeightLoader::optional_vector(const std::string& name, int64_t size) {
  std::vector<float> values;
  if (checkpoint_.has(name)) append_vector(name, size, {}, values);
  return values;
}

void WeightLoader::finish(const std::vector<std::string>& ignored) const {
  for (const std::string& name : checkpoint_.unused()) {
    bool known = false;
    for (const std::string& part : ignored) known = known || name.find(part) != std::string::npos;
    if (!known) {
      throw LoadError(str_cat("tensor '", name,
                              "' is left over; expected every tensor of the "
                              "checkpoint to belong to ",
                              checkpoint_.architecture()));
    }
  }
}

}  // namespace octavo
