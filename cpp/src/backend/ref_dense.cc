// The words of the reference back end that work row by row: embed, linear, norms, gate, gather,
// sample.
#include <cmath>
#include <cstring>
#include <numbers>

#include "backend/ref.h"
#include "backend/sample_row.h"
#include "base/check.h"

namespace octavo {
namespace {

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return x < 0 ? 0 : x;  // NaN stays
    case Activation::kSilu: return x / (1 + std::exp(-x));
    case Activation::kGelu: return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
    case Activation::kGeluTanh: {
      const double inner = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
      return 0.5 * x * (1 + std::tanh(inner));
    }
  }
  OCTAVO_CHECK(false, "activation ", static_cast<int>(activation), "; expected one of the five");
  return x;
}

const RefWeight& ref_weight(const PackedWeight* weight) {
  const auto* own = dynamic_cast<const RefWeight*>(weight);
  OCTAVO_CHECK(own != nullptr, "weight: expected one that this back end packed");
  return *own;
}

void check_float32(const char* word, const Tensor& tensor) {
  OCTAVO_CHECK(tensor.dtype() == DType::kFloat32, word, ": activations are ",
               dtype_name(tensor.dtype()), "; expected float32");
}

double dot(const float* a, const float* b, int64_t size) {
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

}  // namespace

void RefBackend::embed(const EmbedArgs& args) {
  check_args(args);
  check_float32("embed", args.out);
  const RefWeight& table = ref_weight(args.table);
  std::vector<float> line(static_cast<size_t>(table.in_features()));
  for (int64_t token = 0; token < args.out.dim(0); ++token) {
    const int64_t row = int64_t{args.ids.as<int32_t>()[token]} + args.offset;
    OCTAVO_CHECK(row >= 0 && row < table.out_features(), "embed: row ", row,
                 "; expected less than ", table.out_features());
    table.read_row(row, line.data());
    float* out = args.out.row<float>(token);
    for (size_t i = 0; i < line.size(); ++i) out[i] = args.accumulate ? out[i] + line[i] : line[i];
  }
}

void RefBackend::linear(const LinearArgs& args) {
  check_args(args);
  check_float32("linear", args.x);
  const RefWeight& weight = ref_weight(args.weight);
  std::vector<float> line(static_cast<size_t>(weight.in_features()));
  for (int64_t o = 0; o < weight.out_features(); ++o) {
    weight.read_row(o, line.data());
    const double bias = args.bias ? args.bias.as<float>()[o] : 0.0;
    for (int64_t token = 0; token < args.x.dim(0); ++token) {
      const double sum = dot(args.x.row<float>(token), line.data(), weight.in_features()) + bias;
      double result = activate(args.activation, sum);
      if (args.residual) result += args.residual.row<float>(token)[o];
      args.out.row<float>(token)[o] = static_cast<float>(result);
    }
  }
}

void RefBackend::rms_norm(const RmsNormArgs& args) {
  check_args(args);
  check_float32("rms_norm", args.x);
  const int64_t hidden = args.x.dim(1);
  const auto* weight = args.weight.as<float>();
  for (int64_t token = 0; token < args.x.dim(0); ++token) {
    const float* x = args.x.row<float>(token);
    float* out = args.out.row<float>(token);
    const double mean_square = dot(x, x, hidden) / static_cast<double>(hidden);
    const double scale = 1 / std::sqrt(mean_square + args.eps);
    for (int64_t i = 0; i < hidden; ++i) out[i] = static_cast<float>(x[i] * scale * weight[i]);
  }
}

void RefBackend::layer_norm(const LayerNormArgs& args) {
  check_args(args);
  check_float32("layer_norm", args.x);
  const int64_t hidden = args.x.dim(1);
  const auto* weight = args.weight.as<float>();
  for (int64_t token = 0; token < args.x.dim(0); ++token) {
    const float* x = args.x.row<float>(token);
    float* out = args.out.row<float>(token);
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < hidden; ++i) mean += x[i];
    mean /= static_cast<double>(hidden);
    for (int64_t i = 0; i < hidden; ++i) variance += (x[i] - mean) * (x[i] - mean);
    variance /= static_cast<double>(hidden);
    const double scale = 1 / std::sqrt(variance + args.eps);
    for (int64_t i = 0; i < hidden; ++i) {
      const double bias = args.bias ? args.bias.as<float>()[i] : 0.0;
      out[i] = static_cast<float>((x[i] - mean) * scale * weight[i] + bias);
    }
  }
}

void RefBackend::gate(const GateArgs& args) {
  check_args(args);
  check_float32("gate", args.gate);
  for (int64_t token = 0; token < args.gate.dim(0); ++token) {
    const float* gate = args.gate.row<float>(token);
    const float* up = args.up.row<float>(token);
    float* out = args.out.row<float>(token);
    for (int64_t i = 0; i < args.gate.dim(1); ++i) {
      out[i] = static_cast<float>(activate(args.activation, gate[i]) * up[i]);
    }
  }
}

void RefBackend::gather_rows(const GatherRowsArgs& args) {
  check_args(args);
  const size_t bytes = static_cast<size_t>(args.x.dim(1)) * dtype_size(args.x.dtype());
  const auto stride_bytes = [](const Tensor& tensor) {
    return tensor.stride(0) * static_cast<int64_t>(dtype_size(tensor.dtype()));
  };
  for (int64_t i = 0; i < args.rows.dim(0); ++i) {
    const int32_t row = args.rows.as<int32_t>()[i];
    OCTAVO_CHECK(row >= 0 && row < args.x.dim(0), "gather_rows: row ", row, "; expected less than ",
                 args.x.dim(0));
    std::memcpy(args.out.as<char>() + i * stride_bytes(args.out),
                args.x.as<char>() + row * stride_bytes(args.x), bytes);
  }
}

void RefBackend::sample(const SampleArgs& args) {
  check_args(args);
  for (int64_t row = 0; row < args.logits.dim(0); ++row) {
    args.out.as<int32_t>()[row] =
        sample_row(args.logits.row<float>(row), args.logits.dim(1), args.rows[row],
                   args.logprobs.empty() ? nullptr : &args.logprobs[row]);
  }
}

}  // namespace octavo
