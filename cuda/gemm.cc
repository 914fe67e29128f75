#include "gemm.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <unordered_map>
#include <utility>

#include "cublas_lt.h"
#include "cuda_error.h"
#include "device.h"
#include "launch/plain_gemm.h"
#include "launch/rows.h"

namespace octavo::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what cuBLAS advises for Hopper
constexpr size_t kBiasBytes = size_t{1} << 20;        // of one bias in out's dtype
constexpr size_t kProductBytes = size_t{4} << 20;     // rows of a product on their way to out
constexpr size_t kMaxPlans = 4096;
constexpr size_t kMaxBiases = 4096;  // of the copies that are kept

cudaDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return CUDA_R_32F;
    case DType::kFloat16: return CUDA_R_16F;
    case DType::kBFloat16: return CUDA_R_16BF;
    default: OCTAVO_CHECK(false, "linear: ", dtype_name(dtype), "; expected a floating dtype");
  }
  return CUDA_R_32F;
}

// The largest power of two up to 256 that divides an address.
uint32_t alignment_of(const void* data) {
  const auto address = reinterpret_cast<uintptr_t>(data) | 256;
  return static_cast<uint32_t>(address & (~address + 1));
}

// Elements from row to row. One row has none: the smallest that is legal makes equal keys equal.
int64_t leading(const Tensor& matrix) {
  return matrix.dim(0) == 1 ? matrix.dim(1) : matrix.stride(0);
}

// What a plan depends on.
struct Problem {
  int64_t tokens, in, out;
  int64_t x_stride, residual_stride, out_stride;  // residual's is out's where there is none
  DType dtype, out_dtype;
  cublasLtEpilogue_t epilogue;
  bool add_residual;
  uint32_t weight_alignment, x_alignment, residual_alignment, out_alignment, bias_alignment;

  bool operator==(const Problem&) const = default;
};

struct ProblemHash {
  size_t operator()(const Problem& p) const {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const int64_t part :
         {p.tokens, p.in, p.out, p.x_stride, p.residual_stride, p.out_stride,
          int64_t{static_cast<int>(p.dtype)}, int64_t{static_cast<int>(p.out_dtype)},
          int64_t{p.epilogue}, int64_t{p.add_residual}, int64_t{p.weight_alignment},
          int64_t{p.x_alignment}, int64_t{p.residual_alignment}, int64_t{p.out_alignment},
          int64_t{p.bias_alignment}}) {
      hash = (hash ^ static_cast<uint64_t>(part)) * 0x100000001b3u;
      hash ^= hash >> 29;
    }
    return static_cast<size_t>(hash);
  }
};

// A bias whose copy in another dtype is kept.
struct BiasKey {
  const void* source;  // float32 [features]
  int64_t features;
  DType dtype;

  bool operator==(const BiasKey&) const = default;
  bool overlaps(const void* data, size_t bytes) const {
    const auto* begin = static_cast<const std::byte*>(source);
    const auto* other = static_cast<const std::byte*>(data);
    return begin < other + bytes && other < begin + features * sizeof(float);
  }
};

struct BiasKeyHash {
  size_t operator()(const BiasKey& key) const { return std::hash<const void*>()(key.source); }
};

void convert_bias(const BiasKey& bias, void* out, cudaStream_t stream) {
  launch_convert({.source = bias.source,
                  .source_dtype = DType::kFloat32,
                  .out = out,
                  .out_dtype = bias.dtype,
                  .rows = 1,
                  .cols = bias.features,
                  .row_order = nullptr,
                  .transposed = false},
                 stream);
}

// Owns one of cuBLASLt's opaque objects.
template <typename Handle, auto kDestroy>
class Owned {
 public:
  Owned() = default;
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() {
    if (handle_ != nullptr) (cublas_lt().*kDestroy)(handle_);
  }
  Handle get() const { return handle_; }
  Handle* out() { return &handle_; }

 private:
  Handle handle_ = nullptr;
};
using Desc = Owned<cublasLtMatmulDesc_t, &CublasLt::desc_destroy>;
using Layout = Owned<cublasLtMatrixLayout_t, &CublasLt::layout_destroy>;
using Preference = Owned<cublasLtMatmulPreference_t, &CublasLt::preference_destroy>;
using LtHandle = Owned<cublasLtHandle_t, &CublasLt::destroy>;

// In cuBLASLt's words, which are column-major: out^T [out, tokens] = weight^T^T [out, in] * x^T.
struct Plan {
  Desc desc;
  Layout weight, x, residual, out;
  cublasLtMatmulAlgo_t algorithm{};
  bool found = false;  // false: cuBLASLt has none
};

template <typename Value>
void set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const Value& value) {
  const CublasLt& lt = cublas_lt();
  lt.check(lt.desc_set(desc, attribute, &value, sizeof value), "attribute of a product");
}

template <typename Value>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
         const Value& value) {
  const CublasLt& lt = cublas_lt();
  lt.check(lt.preference_set(preference, attribute, &value, sizeof value), "preference");
}

Layout make_layout(DType dtype, int64_t rows, int64_t columns, int64_t leading_dimension) {
  const CublasLt& lt = cublas_lt();
  Layout layout;
  lt.check(lt.layout_create(layout.out(), data_type(dtype), static_cast<uint64_t>(rows),
                            static_cast<uint64_t>(columns), leading_dimension),
           "layout");
  return layout;
}

bool has_bias(cublasLtEpilogue_t epilogue) {
  return epilogue == CUBLASLT_EPILOGUE_BIAS || epilogue == CUBLASLT_EPILOGUE_RELU_BIAS;
}

Preference make_preference(const Problem& problem) {
  const CublasLt& lt = cublas_lt();
  Preference preference;
  lt.check(lt.preference_create(preference.out()), "preference");
  set(preference.get(), CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  // Parts of a sum over k are added as float32, never in out's dtype.
  set(preference.get(), CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      uint32_t{CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  set(preference.get(), CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, problem.weight_alignment);
  set(preference.get(), CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, problem.x_alignment);
  set(preference.get(), CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, problem.residual_alignment);
  set(preference.get(), CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, problem.out_alignment);
  return preference;
}

// `bias` stands for its alignment here, and is not read.
Plan make_plan(cublasLtHandle_t handle, const Problem& problem, const void* bias) {
  const CublasLt& lt = cublas_lt();
  Plan plan;
  lt.check(lt.desc_create(plan.desc.out(), CUBLAS_COMPUTE_32F, CUDA_R_32F), "product");
  set(plan.desc.get(), CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  set(plan.desc.get(), CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
  set(plan.desc.get(), CUBLASLT_MATMUL_DESC_EPILOGUE, problem.epilogue);
  if (has_bias(problem.epilogue)) {
    set(plan.desc.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    set(plan.desc.get(), CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, data_type(problem.out_dtype));
  }
  plan.weight = make_layout(problem.dtype, problem.in, problem.out, problem.in);
  plan.x = make_layout(problem.dtype, problem.in, problem.tokens, problem.x_stride);
  plan.residual =
      make_layout(problem.out_dtype, problem.out, problem.tokens, problem.residual_stride);
  plan.out = make_layout(problem.out_dtype, problem.out, problem.tokens, problem.out_stride);
  const Preference preference = make_preference(problem);
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  const cublasStatus_t status =
      lt.heuristic(handle, plan.desc.get(), plan.weight.get(), plan.x.get(), plan.residual.get(),
                   plan.out.get(), preference.get(), 1, &result, &found);
  // "Not supported" is an answer: shapes and alignments are anything.
  plan.found = status == CUBLAS_STATUS_SUCCESS && found > 0 &&
               result.state == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= kWorkspaceBytes;
  if (!plan.found && status != CUBLAS_STATUS_NOT_SUPPORTED &&
      status != CUBLAS_STATUS_INVALID_VALUE) {
    lt.check(status, "choice of an algorithm");
  }
  plan.algorithm = result.algo;
  return plan;
}

}  // namespace

struct Gemm::Impl {
  explicit Impl(cudaStream_t stream_of_words) : stream(stream_of_words) {
    const CublasLt& lt = cublas_lt();
    lt.check(lt.create(handle.out()), "start");
    memory = allocate_device(kWorkspaceBytes + kBiasBytes + kProductBytes, stream);
  }

  void* bias_place() const { return memory.as<std::byte>() + kWorkspaceBytes; }
  void* product_place() const { return memory.as<std::byte>() + kWorkspaceBytes + kBiasBytes; }

  const Plan& plan_of(const Problem& problem, const void* bias);
  bool multiply(const GemmArgs& args, cublasLtEpilogue_t epilogue, const void* bias);
  const void* bias_for(const GemmArgs& args);
  bool may_allocate() const;
  void multiply_alone(const GemmArgs& args);
  void finish(const GemmArgs& args);
  void finish_in_place(const GemmArgs& args);

  cudaStream_t stream;
  LtHandle handle;
  Buffer memory;  // cuBLASLt's workspace, then a bias, then rows of a product
  std::unordered_map<Problem, Plan, ProblemHash> plans;
  std::unordered_map<BiasKey, Buffer, BiasKeyHash> biases;
};

const Plan& Gemm::Impl::plan_of(const Problem& problem, const void* bias) {
  const auto known = plans.find(problem);
  if (known != plans.end()) [[likely]]
    return known->second;
  if (plans.size() >= kMaxPlans) plans.clear();
  return plans.emplace(problem, make_plan(handle.get(), problem, bias)).first->second;
}

// out = epilogue(x * weight^T + residual); activations and biases other than the epilogue's are the
// caller's matter. False: cuBLASLt has no algorithm for it, and nothing was done.
bool Gemm::Impl::multiply(const GemmArgs& args, cublasLtEpilogue_t epilogue, const void* bias) {
  if (args.x.dim(1) == 0) return false;
  const bool add = static_cast<bool>(args.residual);
  const Tensor& residual = add ? args.residual : args.out;
  const bool biased = has_bias(epilogue);
  const Problem problem{.tokens = args.x.dim(0),
                        .in = args.x.dim(1),
                        .out = args.out.dim(1),
                        .x_stride = leading(args.x),
                        .residual_stride = leading(residual),
                        .out_stride = leading(args.out),
                        .dtype = args.x.dtype(),
                        .out_dtype = args.out.dtype(),
                        .epilogue = epilogue,
                        .add_residual = add,
                        .weight_alignment = alignment_of(args.weight),
                        .x_alignment = alignment_of(args.x.data()),
                        .residual_alignment = alignment_of(residual.data()),
                        .out_alignment = alignment_of(args.out.data()),
                        .bias_alignment = biased ? alignment_of(bias) : 0};
  const Plan& plan = plan_of(problem, bias);
  if (!plan.found) return false;
  if (biased) set(plan.desc.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  const CublasLt& lt = cublas_lt();
  const float one = 1.0f, beta = add ? 1.0f : 0.0f;
  lt.check(
      lt.matmul(handle.get(), plan.desc.get(), &one, args.weight, plan.weight.get(), args.x.data(),
                plan.x.get(), &beta, residual.data(), plan.residual.get(), args.out.data(),
                plan.out.get(), &plan.algorithm, memory.data(), kWorkspaceBytes, stream),
      "linear");
  return true;
}

bool Gemm::Impl::may_allocate() const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(stream, &status), "linear");
  return status == cudaStreamCaptureStatusNone;
}

// cuBLASLt wants a bias of out's dtype. What has no kept copy is converted anew each time, which
// costs a launch but no pass over out. Null: too long.
const void* Gemm::Impl::bias_for(const GemmArgs& args) {
  const int64_t features = args.out.dim(1);
  const DType dtype = args.out.dtype();
  if (dtype == DType::kFloat32 && alignment_of(args.bias.data()) >= 16) return args.bias.data();
  const size_t bytes = static_cast<size_t>(features) * dtype_size(dtype);
  if (bytes > kBiasBytes) return nullptr;
  const BiasKey key{.source = args.bias.data(), .features = features, .dtype = dtype};
  const auto known = biases.find(key);
  if (known != biases.end()) [[likely]]
    return known->second.data();
  if (biases.size() >= kMaxBiases || !may_allocate()) {
    convert_bias(key, bias_place(), stream);
    return bias_place();
  }
  const auto kept = biases.emplace(key, allocate_device(bytes, stream)).first;
  convert_bias(key, kept->second.data(), stream);
  return kept->second.data();
}

void Gemm::Impl::multiply_alone(const GemmArgs& args) {
  GemmArgs product = args;
  product.residual = {};
  if (multiply(product, CUBLASLT_EPILOGUE_DEFAULT, nullptr)) return;
  launch_plain_gemm({.weight = args.weight, .x = args.x, .out = args.out}, stream);
}

void Gemm::Impl::finish(const GemmArgs& args) {
  if (!args.bias && !args.residual && args.activation == Activation::kNone) return;
  launch_finish_linear({.out = args.out,
                        .bias = args.bias,
                        .activation = args.activation,
                        .residual = args.residual},
                       stream);
}

// The residual is out: rows of the product are made and finished elsewhere, and copied there.
void Gemm::Impl::finish_in_place(const GemmArgs& args) {
  const int64_t tokens = args.x.dim(0), features = args.out.dim(1);
  const size_t row_bytes = static_cast<size_t>(features) * dtype_size(args.out.dtype());
  OCTAVO_CHECK(row_bytes <= kProductBytes, "linear: ", features,
               " out_features added to out itself; expected fewer");
  const auto most = static_cast<int64_t>(kProductBytes / row_bytes);
  for (int64_t begin = 0; begin < tokens; begin += most) {
    const int64_t end = std::min(tokens, begin + most);
    const Tensor target = args.out.rows(begin, end);
    GemmArgs part = args;
    part.x = args.x.rows(begin, end);
    part.residual = target;
    part.out = Tensor(product_place(), args.out.dtype(), {end - begin, features});
    multiply_alone(part);
    finish(part);
    const size_t pitch = end - begin == 1
                             ? row_bytes
                             : static_cast<size_t>(target.stride(0)) * dtype_size(target.dtype());
    check_cuda(
        cudaMemcpy2DAsync(target.data(), pitch, product_place(), row_bytes, row_bytes,
                          static_cast<size_t>(end - begin), cudaMemcpyDeviceToDevice, stream),
        "linear");
  }
}

Gemm::Gemm(cudaStream_t stream) : impl_(std::make_unique<Impl>(stream)) {}
Gemm::~Gemm() = default;

size_t Gemm::workspace_bytes() const { return impl_->memory.bytes(); }

void Gemm::written(const void* data, size_t bytes) {
  for (const auto& [bias, copy] : impl_->biases) {
    if (bias.overlaps(data, bytes)) convert_bias(bias, copy.data(), impl_->stream);
  }
}

// Freeing a copy waits for the kernels that read it.
void Gemm::allocated(const void* data, size_t bytes) {
  std::erase_if(impl_->biases,
                [&](const auto& entry) { return entry.first.overlaps(data, bytes); });
}

size_t Gemm::num_plain_plans() const {
  return static_cast<size_t>(
      std::ranges::count_if(impl_->plans, [](const auto& entry) { return !entry.second.found; }));
}

void Gemm::run(const GemmArgs& args) {
  if (args.x.dim(0) == 0 || args.out.dim(1) == 0) return;
  const bool relu = args.activation == Activation::kRelu && !args.residual;
  if (relu || args.activation == Activation::kNone) {
    // cuBLASLt adds the residual before its epilogue's relu, which is another function.
    const void* bias = args.bias ? impl_->bias_for(args) : nullptr;
    const bool whole = bias != nullptr || !args.bias;
    const cublasLtEpilogue_t epilogue =
        relu ? (bias != nullptr ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU)
             : (bias != nullptr ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT);
    if (whole && impl_->multiply(args, epilogue, bias)) return;
  }
  if (args.residual && args.residual.data() == args.out.data()) return impl_->finish_in_place(args);
  impl_->multiply_alone(args);
  impl_->finish(args);
}

}  // namespace octavo::cuda
