#include "cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>

#include "backend/registry.h"
#include "backend/sample_row.h"
#include "base/check.h"
#include "base/cpu_topology.h"
#include "cpu/isa.h"
#include "octavo/engine.h"
#include "tensor/arena.h"

namespace octavo {
namespace {

const CpuWeight& cpu_weight(const PackedWeight* weight) {
  return static_cast<const CpuWeight&>(*weight);
}

void check_activations(const char* word, const Tensor& tensor) {
  OCTAVO_CHECK(tensor.dtype() == DType::kFloat32, word, ": activations are ",
               dtype_name(tensor.dtype()), "; expected float32");
}

size_t tensor_bytes(const char* word, const Tensor& tensor) {
  OCTAVO_CHECK(tensor.contiguous(), word, ": the tensor has gaps; expected a contiguous one");
  return static_cast<size_t>(tensor.size()) * dtype_size(tensor.dtype());
}

}  // namespace

CpuBackend::CpuBackend(const KernelTable& kernels, int32_t num_threads)
    : kernels_(kernels), pool_(num_threads) {}

DeviceInfo CpuBackend::info() const {
  return {.name = "cpu", .isa = kernels_.isa, .num_threads = pool_.num_threads()};
}

void CpuBackend::copy_to_device(const Tensor& target, const void* source) {
  const size_t bytes = tensor_bytes("copy_to_device", target);
  if (bytes != 0) std::memcpy(target.data(), source, bytes);
}

void CpuBackend::copy_to_host(void* target, const Tensor& source) {
  const size_t bytes = tensor_bytes("copy_to_host", source);
  if (bytes != 0) std::memcpy(target, source.data(), bytes);
}

std::unique_ptr<PackedWeight> CpuBackend::pack(std::span<const WeightSegment> segments,
                                               const WeightTarget& target) {
  return pack_weight(segments, target, kernels_, pool_);
}

void CpuBackend::reserve_scratch(int64_t floats) {
  constexpr int64_t kLine = static_cast<int64_t>(Arena::kAlignment / sizeof(float));
  const int64_t stride = (floats + kLine - 1) / kLine * kLine;
  if (stride <= scratch_stride_) return;
  const auto threads = static_cast<size_t>(pool_.num_threads());
  scratch_ = allocate_host_memory(threads * static_cast<size_t>(stride) * sizeof(float));
  scratch_stride_ = stride;
}

void CpuBackend::embed(const EmbedArgs& args) {
  check_args(args);
  check_activations("embed", args.out);
  const CpuWeight& table = cpu_weight(args.table);
  const int32_t* ids = args.ids.as<int32_t>();
  const int64_t tokens = args.out.dim(0), hidden = args.out.dim(1);
  if (args.accumulate) reserve_scratch(hidden);
  for_each_row(tokens, tokens * hidden * 4, [&](int64_t token, int32_t thread) {
    const int64_t row = int64_t{ids[token]} + args.offset;
    OCTAVO_CHECK(row >= 0 && row < table.out_features(), "embed: row ", row,
                 "; expected 0 or more and less than ", table.out_features());
    float* out = args.out.row<float>(token);
    if (!args.accumulate) return table.read_row(kernels_, row, out);
    float* line = scratch(thread);
    table.read_row(kernels_, row, line);
    for (int64_t i = 0; i < hidden; ++i) out[i] += line[i];
  });
}

void CpuBackend::rms_norm(const RmsNormArgs& args) {
  check_args(args);
  check_activations("rms_norm", args.x);
  for_each_row(args.x.dim(0), args.x.size(), [&](int64_t row) {
    kernels_.rms_norm(args.x.row<float>(row), args.weight.as<float>(), args.eps, args.x.dim(1),
                      args.out.row<float>(row));
  });
}

void CpuBackend::layer_norm(const LayerNormArgs& args) {
  check_args(args);
  check_activations("layer_norm", args.x);
  const float* bias = args.bias ? args.bias.as<float>() : nullptr;
  for_each_row(args.x.dim(0), args.x.size(), [&](int64_t row) {
    kernels_.layer_norm(args.x.row<float>(row), args.weight.as<float>(), bias, args.eps,
                        args.x.dim(1), args.out.row<float>(row));
  });
}

void CpuBackend::gate(const GateArgs& args) {
  check_args(args);
  check_activations("gate", args.gate);
  for_each_row(args.gate.dim(0), args.gate.size() * 4, [&](int64_t row) {
    kernels_.gate(args.activation, args.gate.row<float>(row), args.up.row<float>(row),
                  args.gate.dim(1), args.out.row<float>(row));
  });
}

void CpuBackend::gather_rows(const GatherRowsArgs& args) {
  check_args(args);
  check_activations("gather_rows", args.x);
  const int32_t* rows = args.rows.as<int32_t>();
  const auto bytes = static_cast<size_t>(args.x.dim(1)) * sizeof(float);
  for (int64_t i = 0; i < args.rows.dim(0); ++i) {
    OCTAVO_CHECK(rows[i] >= 0 && rows[i] < args.x.dim(0), "gather_rows: row ", rows[i],
                 "; expected 0 or more and less than ", args.x.dim(0));
    std::memmove(args.out.row<float>(i), args.x.row<float>(rows[i]), bytes);
  }
}

void CpuBackend::sample(const SampleArgs& args) {
  check_args(args);
  int32_t* out = args.out.as<int32_t>();
  for_each_row(args.logits.dim(0), args.logits.size() * 8, [&](int64_t row) {
    const auto i = static_cast<size_t>(row);
    out[row] = sample_row(args.logits.row<float>(row), args.logits.dim(1), args.rows[i],
                          args.logprobs.empty() ? nullptr : &args.logprobs[i]);
  });
}

std::unique_ptr<Backend> make_cpu_backend(int32_t num_threads) {
  return std::make_unique<CpuBackend>(active_kernels(),
                                      num_threads == 0 ? default_num_threads() : num_threads);
}

}  // namespace octavo
