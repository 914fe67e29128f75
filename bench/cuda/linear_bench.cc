// Times of the products of a decode step: the skinny kernel with each of its tiles, and cuBLASLt
// with each of its first algorithms, on weights that no cache holds; then layers as a model chains
// them. Usage: linear_bench [products|layers]
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string_view>
#include <vector>

#include "cublas_lt.h"
#include "cuda_error.h"
#include "device.h"
#include "launch/noise.h"
#include "launch/rows.h"
#include "launch/skinny.h"
#include "timer.h"

namespace octavo::bench {
namespace {

using cuda::check_cuda;
using cuda::cublas_lt;

constexpr size_t kPoolBytes = size_t{4} << 30;
constexpr size_t kActivationBytes = size_t{1} << 30;
constexpr size_t kWorkspaceBytes = size_t{32} << 20;
constexpr int kAlgorithms = 8;
constexpr int64_t kMostTokens = 512;

struct Matrix {
  const char* name;
  int64_t out, in;
  DType dtype;
  bool gated = false;  // only the products of the skinny kernel take gates along
  size_t bytes() const { return static_cast<size_t>(out * in) * dtype_size(dtype); }
};

constexpr Matrix kMatrices[] = {
    {"llama qkv", 6144, 4096, DType::kBFloat16},
    {"llama o", 4096, 4096, DType::kBFloat16},
    {"llama gate_up", 28672, 4096, DType::kBFloat16, true},
    {"llama down", 4096, 14336, DType::kBFloat16},
    {"llama head", 128256, 4096, DType::kBFloat16},
    {"opt qkv", 2304, 768, DType::kFloat16},
    {"opt out", 768, 768, DType::kFloat16},
    {"opt fc1", 3072, 768, DType::kFloat16},
    {"opt fc2", 768, 3072, DType::kFloat16},
    {"opt head", 50272, 768, DType::kFloat16},
};
constexpr int64_t kTokens[] = {1, 2, 4, 8, 16, 24, 32, 48, 64, 128, 256, 512};

// The device's memory of all cases, and what runs on it.
struct Bench {
  Bench()
      : properties(cuda::open_device(0)),
        timer(stream.get()),
        pool(cuda::allocate_device(kPoolBytes, stream.get())),
        activations(cuda::allocate_device(kActivationBytes, stream.get())),
        workspace(cuda::allocate_device(kWorkspaceBytes, stream.get())) {
    cublas_lt().check(cublas_lt().create(&handle), "start");
    fill(pool, DType::kBFloat16);
    fill(activations, DType::kBFloat16);
    stream.wait();
  }
  ~Bench() { cublas_lt().destroy(handle); }

  void fill(const Buffer& buffer, DType dtype) {
    constexpr int64_t kColumns = 1 << 16;
    cuda::launch_noise({.seed = 1,
                        .matrix_dtype = dtype,
                        .out = buffer.data(),
                        .out_dtype = dtype,
                        .rows = static_cast<int64_t>(buffer.bytes() / dtype_size(dtype)) / kColumns,
                        .cols = kColumns,
                        .row_order = nullptr,
                        .transposed = false},
                       stream.get());
  }

  cuda::DeviceProperties properties;
  cuda::Stream stream;
  Timer timer;
  Buffer pool, activations, workspace;
  cublasLtHandle_t handle = nullptr;
};

// As many launches as read 2 GB, each of another copy of the weight while there are any.
struct Rotation {
  explicit Rotation(const Matrix& matrix)
      : bytes((matrix.bytes() + 255) / 256 * 256),
        launches(std::clamp<size_t>((size_t{2} << 30) / bytes, 4, 400)),
        copies(std::min(launches, kPoolBytes / bytes)) {}
  const void* weight(const Bench& bench, size_t i) const {
    return bench.pool.as<std::byte>() + i % copies * bytes;
  }
  size_t bytes, launches, copies;
};

double time_skinny(Bench& bench, const Matrix& matrix, int64_t tokens, int halves) {
  const Rotation rotation(matrix);
  const Tensor x(bench.activations.data(), matrix.dtype, {tokens, matrix.in});
  const Tensor out(bench.activations.as<std::byte>() + kActivationBytes / 2, matrix.dtype,
                   {tokens, matrix.gated ? matrix.out / 2 : matrix.out});
  const double seconds = bench.timer.seconds([&] {
    for (size_t i = 0; i < rotation.launches; ++i) {
      const void* weight = rotation.weight(bench, i);
      if (matrix.gated) {
        cuda::launch_skinny_gate({.weight = weight,
                                  .x = x,
                                  .bias = {},
                                  .activation = Activation::kSilu,
                                  .out = out,
                                  .halves = halves},
                                 bench.stream.get());
      } else {
        cuda::launch_skinny({.weight = weight,
                             .x = x,
                             .bias = {},
                             .activation = Activation::kNone,
                             .residual = {},
                             .out = out,
                             .halves = halves},
                            bench.stream.get());
      }
    }
  });
  return seconds / static_cast<double>(rotation.launches);
}

// A product as cuBLASLt takes it, with its first algorithms.
class LtProduct {
 public:
  LtProduct(Bench& bench, const Matrix& matrix, int64_t tokens)
      : bench_(bench), matrix_(matrix), results_(kAlgorithms) {
    const auto& lt = cublas_lt();
    const cudaDataType_t type = matrix.dtype == DType::kFloat16 ? CUDA_R_16F : CUDA_R_16BF;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    lt.check(lt.desc_create(&desc_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "product");
    lt.check(lt.desc_set(desc_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
             "attribute");
    const auto in = static_cast<uint64_t>(matrix.in), out = static_cast<uint64_t>(matrix.out);
    const auto count = static_cast<uint64_t>(tokens);
    lt.check(lt.layout_create(&weight_, type, in, out, matrix.in), "layout");
    lt.check(lt.layout_create(&x_, type, in, count, matrix.in), "layout");
    lt.check(lt.layout_create(&out_, type, out, count, matrix.out), "layout");
    choose();
  }
  ~LtProduct() {
    cublas_lt().layout_destroy(weight_);
    cublas_lt().layout_destroy(x_);
    cublas_lt().layout_destroy(out_);
    cublas_lt().desc_destroy(desc_);
  }
  LtProduct(const LtProduct&) = delete;
  LtProduct& operator=(const LtProduct&) = delete;

  size_t algorithms() const { return results_.size(); }

  double time(size_t index) {
    const Rotation rotation(matrix_);
    launch(rotation.weight(bench_, 0), index);  // loads the kernel's code
    bench_.stream.wait();
    const double seconds = bench_.timer.seconds([&] {
      for (size_t i = 0; i < rotation.launches; ++i) launch(rotation.weight(bench_, i), index);
    });
    return seconds / static_cast<double>(rotation.launches);
  }

 private:
  void choose() {
    const auto& lt = cublas_lt();
    cublasLtMatmulPreference_t preference = nullptr;
    lt.check(lt.preference_create(&preference), "preference");
    const size_t workspace = kWorkspaceBytes;
    const uint32_t schemes =
        CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    lt.check(lt.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                               sizeof workspace),
             "preference");
    lt.check(lt.preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes,
                               sizeof schemes),
             "preference");
    int found = 0;
    lt.check(lt.heuristic(bench_.handle, desc_, weight_, x_, out_, out_, preference, kAlgorithms,
                          results_.data(), &found),
             "choice");
    lt.preference_destroy(preference);
    results_.resize(static_cast<size_t>(found));
  }

  void launch(const void* weight, size_t index) {
    const float one = 1.0f, zero = 0.0f;
    void* out = bench_.activations.as<std::byte>() + kActivationBytes / 2;
    cublas_lt().check(
        cublas_lt().matmul(bench_.handle, desc_, &one, weight, weight_, bench_.activations.data(),
                           x_, &zero, out, out_, out, out_, &results_[index].algo,
                           bench_.workspace.data(), kWorkspaceBytes, bench_.stream.get()),
        "product");
  }

  Bench& bench_;
  const Matrix& matrix_;
  std::vector<cublasLtMatmulHeuristicResult_t> results_;
  cublasLtMatmulDesc_t desc_ = nullptr;
  cublasLtMatrixLayout_t weight_ = nullptr, x_ = nullptr, out_ = nullptr;
};

// One line: microseconds of every way, and what the best of them reads of the weight a second.
void run_case(Bench& bench, const Matrix& matrix, int64_t tokens, double rate) {
  double best = 1e9;
  std::printf("%-14s %4d |", matrix.name, static_cast<int>(tokens));
  for (const int halves : {0, 1, 2, 4}) {  // 0: what the kernel chooses
    const bool runs =
        tokens <= cuda::kMostSkinnyTokens && (halves != 1 || (tokens <= 8 && !matrix.gated));
    const double seconds = runs ? time_skinny(bench, matrix, tokens, halves) : 0;
    if (runs) best = std::min(best, seconds);
    runs ? std::printf(" %7.2f", seconds * 1e6) : std::printf("       -");
  }
  LtProduct product(bench, matrix, tokens);
  size_t best_index = 0;
  double first = 0, fastest = 1e9;
  for (size_t i = 0; i < product.algorithms(); ++i) {
    const double seconds = product.time(i);
    if (i == 0) first = seconds;
    if (seconds >= fastest) continue;
    fastest = seconds;
    best_index = i;
  }
  best = std::min(best, fastest);
  const double read = static_cast<double>(matrix.bytes()) / best;
  std::printf(" | %7.2f  [%d] %7.2f  %+5.1f %% | %6.0f GB/s %3.0f %%\n", first * 1e6,
              static_cast<int>(best_index), fastest * 1e6, 100 * (first / fastest - 1), read / 1e9,
              100 * read / rate);
  std::fflush(stdout);
}

void run_products(Bench& bench, double rate) {
  std::puts(
      "us of a product; gate_up: the skinny kernel applies the gates, cuBLASLt does not\n"
      "matrix      tokens | skinny: own tile, 8, 16, 32 rows | cuBLASLt first, [best] and its gain "
      "| the best of all");
  for (const Matrix& matrix : kMatrices) {
    for (const int64_t tokens : kTokens) run_case(bench, matrix, tokens, rate);
  }
}

// Llama-3-8B's layers without attention: `gap` norms stand for what lies between qkv and o, and
// `next` bytes of o are asked for at the end of qkv.
struct Chain {
  int64_t tokens;
  int gap;
  int64_t next;
};

class Layers {
 public:
  static constexpr int kLayers = 8;
  static constexpr int64_t kHidden = 4096, kQkv = 6144, kIntermediate = 14336;

  Layers(Bench& bench, const Chain& chain) : bench_(bench), chain_(chain) {
    auto* place = bench.activations.as<std::byte>();
    const auto take = [&](int64_t columns) {
      const Tensor tensor(place, DType::kBFloat16, {chain.tokens, columns});
      place += chain.tokens * columns * 2;
      return tensor;
    };
    hidden_ = take(kHidden);
    normed_ = take(kHidden);
    qkv_ = take(kQkv);
    gated_ = take(kIntermediate);
    place = bench.activations.as<std::byte>() + kActivationBytes / 2;
    norm_weight_ = Tensor(place, DType::kFloat32, {kHidden});
  }

  double seconds() {
    return bench_.timer.seconds([&] {
      for (int i = 0; i < kLayers; ++i) run_layer(i);
    }) / kLayers;
  }
  static constexpr size_t bytes() {
    return static_cast<size_t>(kHidden * (kQkv + kHidden + 3 * kIntermediate)) * 2;
  }

 private:
  void norm(const Tensor& x, const Tensor& out) {
    cuda::launch_rms_norm({.x = x, .weight = norm_weight_, .eps = 1e-5f, .out = out},
                          bench_.stream.get());
  }

  void run_layer(int layer) {
    const auto* qkv = bench_.pool.as<std::byte>() + static_cast<size_t>(layer) * bytes();
    const auto* o = qkv + kHidden * kQkv * 2;
    const auto* gate_up = o + kHidden * kHidden * 2;
    const auto* down = gate_up + kHidden * kIntermediate * 4;
    norm(hidden_, normed_);
    linear(qkv, normed_, {}, qkv_, o);
    for (int i = 0; i < chain_.gap; ++i) norm(hidden_, normed_);
    linear(o, normed_, hidden_, hidden_, nullptr);
    norm(hidden_, normed_);
    cuda::launch_skinny_gate({.weight = gate_up,
                              .x = normed_,
                              .bias = {},
                              .activation = Activation::kSilu,
                              .out = gated_},
                             bench_.stream.get());
    linear(down, gated_, hidden_, hidden_, nullptr);
  }

  void linear(const void* weight, const Tensor& x, const Tensor& residual, const Tensor& out,
              const void* next) {
    cuda::launch_skinny({.weight = weight,
                         .x = x,
                         .bias = {},
                         .activation = Activation::kNone,
                         .residual = residual,
                         .out = out,
                         .next = chain_.next > 0 ? next : nullptr,
                         .next_bytes = chain_.next},
                        bench_.stream.get());
  }

  Bench& bench_;
  Chain chain_;
  Tensor hidden_, normed_, qkv_, gated_, norm_weight_;
};

void run_layers(Bench& bench, double rate) {
  std::puts(
      "us of a layer of Llama-3-8B without attention, in a chain of 8 (the floor: copy rate)");
  const double floor = static_cast<double>(Layers::bytes()) / rate;
  for (const int64_t tokens : {1, 2, 4, 8, 16}) {
    for (const int gap : {0, 4}) {
      for (const int64_t next : {0, 8, 16, 32}) {
        if (gap == 0 && next > 0) continue;
        const double seconds = Layers(bench, {tokens, gap, next << 20}).seconds();
        std::printf(
            "tokens %2d, %d norms between qkv and o, %2d MB of o ahead: %7.2f (floor %.2f)\n",
            static_cast<int>(tokens), gap, static_cast<int>(next), seconds * 1e6, floor * 1e6);
      }
    }
  }
}

void run(std::string_view only) {
  Bench bench;
  const double rate =
      copy_rate(bench.timer, bench.pool.data(), size_t{2} << 30, bench.stream.get());
  std::printf("%s, copies %.0f GB/s, %s\n", bench.properties.name.c_str(), rate / 1e9,
              cublas_lt().path.c_str());
  if (only != "products") run_layers(bench, rate);
  if (only != "layers") run_products(bench, rate);
}

}  // namespace
}  // namespace octavo::bench

int main(int argc, char** argv) {
  try {
    octavo::bench::run(argc > 1 ? argv[1] : "");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
