#include "launch/skinny.h"

#include <array>
#include <atomic>
#include <cstdint>

#include "cuda_error.h"
#include "kernels/skinny.cuh"
#include "kernels/skinny_float.cuh"
#include "launch/dispatch.h"

namespace octavo::cuda {
namespace {

// Up to these numbers of rows the kernels win over cuBLASLt's. linear_bench measures where that
// ends: launch_skinny takes up to kMostSkinnyTokens.
constexpr int64_t kMaxTokens = 16;
static_assert(kMaxTokens <= kMostSkinnyTokens);
constexpr int64_t kMaxFloatTokens = 4;
constexpr int kMaxDevices = 64;

// What both words ask of their operands: rows of 16-byte pieces, and numbers that fit.
bool takes(const void* weight, const Tensor& x, int64_t rows, int64_t tokens) {
  if (!is_floating(x.dtype()) || tokens < 1) return false;
  const bool floats = x.dtype() == DType::kFloat32;
  const int64_t piece = floats ? 4 : 8, in = x.dim(1);
  if (tokens > (floats ? kMaxFloatTokens : kMaxTokens)) return false;
  if (in < 1 || in % piece != 0 || in > (1 << 30) || rows < 1 || rows > (1 << 30)) return false;
  return is_aligned(weight) && is_aligned(x.data()) && (tokens == 1 || x.stride(0) % piece == 0);
}

struct DeviceFacts {
  int index;
  int multiprocessors;
};

DeviceFacts device_facts() {
  static std::array<std::atomic<int>, kMaxDevices> counts;  // zeros
  int device = 0;
  check_cuda(cudaGetDevice(&device), "linear");
  OCTAVO_CHECK(device < kMaxDevices, "linear: device ", device, "; expected less than ",
               kMaxDevices);
  int count = counts[static_cast<size_t>(device)].load(std::memory_order_relaxed);
  if (count == 0) {
    check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "linear");
    counts[static_cast<size_t>(device)].store(count, std::memory_order_relaxed);
  }
  return {device, count};
}

// How many groups of 8 rows make a tile. Large tiles read x less often: its share of a tile's bytes
// is tokens / (8 * halves). Small ones keep all multiprocessors busy, and more of the weight is on
// its way when the kernel ahead ends: `full` is about the number of blocks that begin at once.
int choose_halves(int64_t rows, int64_t tokens, bool gated, int multiprocessors) {
  const int64_t busy = multiprocessors * int64_t{9} / 10, full = multiprocessors * int64_t{29} / 10;
  if (rows / 32 >= (tokens > 8 ? busy : full) && tokens > 2) return 4;
  if (tokens > 8 || gated || rows / 16 >= (tokens > 2 ? busy : full)) return 2;
  return 1;
}

// What the first launch of a kernel on a device finds out; in (bit 0 set) means known.
template <auto kKernel>
bool prepared_early(int device, size_t shared_bytes) {
  static std::array<std::atomic<uint8_t>, kMaxDevices> known;
  std::atomic<uint8_t>& state = known[static_cast<size_t>(device)];
  uint8_t value = state.load(std::memory_order_acquire);
  if (value == 0) {
    check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kKernel),
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared_bytes)),
               "linear");
    // As many blocks as have room: what is left to the L1 cache holds the x of a few tokens.
    check_cuda(
        cudaFuncSetAttribute(
            reinterpret_cast<const void*>(kKernel), cudaFuncAttributePreferredSharedMemoryCarveout,
            shared_bytes > 0 ? cudaSharedmemCarveoutMaxShared : cudaSharedmemCarveoutDefault),
        "linear");
    value = waits_for_earlier_kernels(kKernel) ? 3 : 1;
    state.store(value, std::memory_order_release);
  }
  return value == 3;
}

template <typename T, int kHalves, int kTokenTiles>
void launch_tiles(const SkinnyParams& params, int device, cudaStream_t stream) {
  constexpr auto kKernel = skinny_kernel<T, kHalves, kTokenTiles>;
  constexpr size_t kShared = skinny_shared_bytes<kHalves, kTokenTiles>();
  const int columns = params.gated ? 4 * kHalves : 8 * kHalves;
  launch_dependent(kKernel, dim3(static_cast<uint32_t>(divide_up(params.out_features, columns))),
                   dim3(kSkinnyThreads), kShared, prepared_early<kKernel>(device, kShared), stream,
                   params);
}

template <typename T, int kHalves>
void launch_halves(const SkinnyParams& params, int device, cudaStream_t stream) {
  if (params.tokens <= 8) return launch_tiles<T, kHalves, 1>(params, device, stream);
  if constexpr (kHalves > 1) {
    if (params.tokens <= 16) return launch_tiles<T, kHalves, 2>(params, device, stream);
    launch_tiles<T, kHalves, 4>(params, device, stream);
  }
}

template <typename T>
void launch_sixteen_bit(const SkinnyParams& params, int halves, cudaStream_t stream) {
  const DeviceFacts device = device_facts();
  const int64_t rows = (params.gated ? 2 : 1) * int64_t{params.out_features};
  if (halves == 0) {
    halves = choose_halves(rows, params.tokens, params.gated, device.multiprocessors);
  }
  OCTAVO_CHECK(params.tokens <= kMostSkinnyTokens, "linear: ", params.tokens,
               " tokens; expected at most ", kMostSkinnyTokens);
  OCTAVO_CHECK(halves > 1 || (params.tokens <= 8 && !params.gated),
               "linear: tiles of 8 rows; expected up to 8 tokens, and no gates");
  switch (halves) {
    case 1: return launch_halves<T, 1>(params, device.index, stream);
    case 2: return launch_halves<T, 2>(params, device.index, stream);
    default: return launch_halves<T, 4>(params, device.index, stream);
  }
}

template <int kTokens>
void launch_float(const SkinnyParams& params, cudaStream_t stream) {
  constexpr auto kKernel = skinny_float_kernel<kTokens>;
  const int64_t units = params.gated ? params.out_features : divide_up(params.out_features, 2);
  launch_dependent(kKernel, dim3(static_cast<uint32_t>(divide_up(units, kSkinnyWarps))),
                   dim3(kSkinnyThreads), 0, prepared_early<kKernel>(device_facts().index, 0),
                   stream, params);
}

void launch(const SkinnyParams& params, DType dtype, int halves, cudaStream_t stream) {
  switch (dtype) {
    case DType::kFloat16: launch_sixteen_bit<__half>(params, halves, stream); break;
    case DType::kBFloat16: launch_sixteen_bit<__nv_bfloat16>(params, halves, stream); break;
    default:
      if (params.tokens == 1) {
        launch_float<1>(params, stream);
      } else {
        launch_float<kMaxFloatTokens>(params, stream);
      }
  }
  check_launch("linear");
}

SkinnyParams common_params(const void* weight, const Tensor& x, const Tensor& bias,
                           Activation activation, const Tensor& out) {
  SkinnyParams params{};
  params.weight = weight;
  params.x = x.data();
  params.bias = bias ? bias.as<const float>() : nullptr;
  params.out = out.data();
  params.x_stride = x.stride(0);
  params.out_stride = out.stride(0);
  params.tokens = static_cast<int32_t>(x.dim(0));
  params.in = static_cast<int32_t>(x.dim(1));
  params.out_features = static_cast<int32_t>(out.dim(1));
  params.activation = activation;
  params.float_out = out.dtype() == DType::kFloat32;
  return params;
}

}  // namespace

bool takes_skinny(const SkinnyLinear& args) {
  return takes(args.weight, args.x, args.out.dim(1), args.x.dim(0));
}

void launch_skinny(const SkinnyLinear& args, cudaStream_t stream) {
  if (args.x.dim(0) == 0 || args.out.dim(1) == 0) return;
  SkinnyParams params = common_params(args.weight, args.x, args.bias, args.activation, args.out);
  if (args.residual) {
    OCTAVO_CHECK(args.residual.dtype() == args.out.dtype(), "linear: residual is ",
                 dtype_name(args.residual.dtype()), "; expected out's ",
                 dtype_name(args.out.dtype()));
    params.residual = args.residual.data();
    params.residual_stride = args.residual.stride(0);
  }
  params.next = is_aligned(args.next) ? args.next : nullptr;
  params.next_bytes = args.next_bytes / 16 * 16;
  launch(params, args.x.dtype(), args.halves, stream);
}

bool takes_skinny_gate(const SkinnyGate& args) {
  return takes(args.weight, args.x, 2 * args.out.dim(1), args.x.dim(0));
}

void launch_skinny_gate(const SkinnyGate& args, cudaStream_t stream) {
  if (args.x.dim(0) == 0 || args.out.dim(1) == 0) return;
  SkinnyParams params = common_params(args.weight, args.x, args.bias, args.activation, args.out);
  params.gated = true;
  launch(params, args.x.dtype(), args.halves, stream);
}

}  // namespace octavo::cuda
