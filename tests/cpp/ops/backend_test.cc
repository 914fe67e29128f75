// What is not a word: memory, the registry, and the checks of arguments.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "ops/backends.h"
#include "ops/device_matrix.h"
#include "ops/weights.h"
#include "tensor/arena.h"

// The address sanitizer would end the process where malloc returns null, which is tested here.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
  return "allocator_may_return_null=1";
}

namespace octavo::test {
namespace {

TEST_CASE("allocate gives zeroed, aligned memory that holds what is copied to it") {
  for_each_backend([](Backend& backend, const std::string& name) {
    for (size_t bytes : {size_t{0}, size_t{1}, size_t{4}, size_t{4096}, size_t{1000003}}) {
      const Buffer buffer = backend.allocate(bytes);
      CHECK_MESSAGE(buffer.bytes() >= bytes, name);
      CHECK_MESSAGE(buffer.data() != nullptr, name);
      CHECK_MESSAGE(reinterpret_cast<uintptr_t>(buffer.data()) % Arena::kAlignment == 0, name);
      const auto count = static_cast<int64_t>(bytes / 4);
      const Tensor tensor(buffer.data(), DType::kInt32, {count});
      const std::vector<int32_t> zeros = download_vector<int32_t>(backend, tensor);
      CHECK_MESSAGE(zeros == std::vector<int32_t>(static_cast<size_t>(count), 0), name);
      const std::vector<int32_t> values(static_cast<size_t>(count), 0x12345678);
      backend.copy_to_device(tensor, values.data());
      CHECK_MESSAGE(download_vector<int32_t>(backend, tensor) == values, name);
    }
  });
}

TEST_CASE("allocate of more than there is throws OutOfMemory") {
  for_each_backend([](Backend& backend, const std::string&) {
    CHECK_THROWS_AS(backend.allocate(SIZE_MAX), OutOfMemory);
    CHECK_THROWS_AS(backend.allocate(SIZE_MAX / 2), OutOfMemory);
    CHECK_THROWS_AS(backend.allocate(SIZE_MAX / 4), OutOfMemory);
  });
}

TEST_CASE("ref: a cache block is its keys and values") {
  CHECK(ref().kv_block_bytes({16, 3, 64, DType::kFloat32}) == 2 * 16 * 3 * 64 * 4);
  CHECK(ref().kv_block_bytes({16, 3, 64, DType::kBFloat16}) == 2 * 16 * 3 * 64 * 2);
  CHECK(ref().info().name == "ref");
  CHECK(ref().activation_dtype(DType::kBFloat16) == DType::kFloat32);
}

TEST_CASE("make_backend knows its names") {
  CHECK(make_backend("ref", 0)->info().name == "ref");
  CHECK(make_backend("cpu", 1)->info().name == "cpu");
  CHECK(make_backend("cpu", 2)->info().num_threads == 2);
  CHECK_THROWS_WITH_AS(make_backend("tpu", 0),
                       "device: 'tpu' is unknown; expected auto, cpu, cuda, cuda:N or ref",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(make_backend("", 0),
                       "device: '' is unknown; expected auto, cpu, cuda, cuda:N or ref",
                       InvalidArgument);
  for (const char* device : {"cuda:", "cuda:-1", "cuda:x", "cuda:1 ", "cuda:99999999999"}) {
    CHECK_THROWS_AS(make_backend(device, 0), InvalidArgument);
  }
  CHECK_THROWS_AS(make_backend("cpu", -1), InvalidArgument);
}

// What OCTAVO_CUDA_LIBRARY names, while this exists.
class CudaLibrary {
 public:
  explicit CudaLibrary(const char* path) { setenv("OCTAVO_CUDA_LIBRARY", path, 1); }
  ~CudaLibrary() { unsetenv("OCTAVO_CUDA_LIBRARY"); }
};

TEST_CASE("make_backend says what is missing where there is no CUDA library") {
  if (skipped_on_cuda("there is one")) return;
  const CudaLibrary missing("/nowhere/liboctavo_cuda.so");
  CHECK_THROWS_WITH_AS(make_backend("cuda", 0),
                       "device: 'cuda' needs Octavo's CUDA library: /nowhere/liboctavo_cuda.so is "
                       "missing; expected a build with OCTAVO_BUILD_CUDA, or device cpu",
                       NotSupported);
  CHECK(make_backend("auto", 1)->info().name == "cpu");
}

TEST_CASE("CUDA: what the device is") {
  if (!on_cuda()) return;
  const Backend& cuda = *other_backends().front().backend;
  CHECK(cuda.info().name == "cuda");
  CHECK(cuda.info().isa.starts_with("sm_"));
  for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    CHECK(cuda.activation_dtype(dtype) == dtype);
  }
  CHECK(cuda.logits_rows() >= 64);
  REQUIRE(cuda.memory().has_value());
  CHECK(cuda.memory()->free > 0);
  CHECK(cuda.memory()->free <= cuda.memory()->free_at_start);
  CHECK_THROWS_AS(make_backend("cuda:1000", 0), NotSupported);
}

TEST_CASE("CUDA: back ends come and go") {
  if (!on_cuda()) return;
  const int64_t before = make_backend("cuda", 0)->memory()->free_at_start;
  for (int i = 0; i < 10; ++i) {
    const auto backend = make_backend("cuda", 0);
    const Buffer buffer = backend->allocate(size_t{1} << 28);
    const Tensor tensor(buffer.data(), DType::kInt32, {1 << 26});
    const std::vector<int32_t> ones(1 << 26, 1);
    backend->copy_to_device(tensor, ones.data());
    CHECK(download_vector<int32_t>(*backend, tensor) == ones);
  }
  // Another process may come meanwhile, but does not take so much.
  CHECK(make_backend("cuda", 0)->memory()->free_at_start >= before - (int64_t{1} << 28));
}

// The message of the InternalError that check_args throws; empty where it throws none.
template <typename Args>
std::string complaint(const Args& args) {
  try {
    check_args(args);
  } catch (const InternalError& error) {
    return error.what();
  }
  return "";
}

Tensor floats(std::initializer_list<int64_t> shape) {
  return Tensor(nullptr, DType::kFloat32, shape);
}
Tensor ints(std::initializer_list<int64_t> shape) { return Tensor(nullptr, DType::kInt32, shape); }

class EmptyWeight final : public PackedWeight {
 public:
  EmptyWeight(int64_t out, int64_t in) : PackedWeight(out, in, DType::kFloat32, 0) {}
};

TEST_CASE("check_args of embed") {
  const EmptyWeight table(10, 4);
  const EmbedArgs good{.ids = ints({3}), .table = &table, .out = floats({3, 4})};
  CHECK(complaint(good) == "");
  EmbedArgs bad = good;
  bad.ids = floats({3});
  CHECK(complaint(bad) == "embed: ids is float32 [3]; expected int32 [3]");
  bad = good;
  bad.table = nullptr;
  CHECK(complaint(bad) == "embed: table is none; expected a weight of [0, 4]");
  bad = good;
  bad.out = floats({3, 5});
  CHECK(complaint(bad) == "embed: table is [10, 4]; expected a weight of [10, 5]");
}

TEST_CASE("check_args of linear") {
  const EmptyWeight weight(5, 4);
  const LinearArgs good{.x = floats({3, 4}), .weight = &weight, .out = floats({3, 5})};
  CHECK(complaint(good) == "");
  LinearArgs bad = good;
  bad.x = floats({3, 6});
  CHECK(complaint(bad) == "linear: weight is [5, 4]; expected a weight of [5, 6]");
  bad = good;
  bad.x = floats({3, 2, 2});
  CHECK(complaint(bad) == "linear: x is float32 [3, 2, 2]; expected a tensor of 2 dimensions");
  bad = good;
  bad.out = floats({2, 5});
  CHECK(complaint(bad) == "linear: out is float32 [2, 5]; expected float32 [3, 5]");
  bad = good;
  bad.bias = floats({4});
  CHECK(complaint(bad) == "linear: bias is float32 [4]; expected float32 [5]");
  bad = good;
  bad.residual = Tensor(nullptr, DType::kBFloat16, {3, 5});
  CHECK(complaint(bad) == "linear: residual is bfloat16 [3, 5]; expected float32 [3, 5]");
}

TEST_CASE("check_args of norms and gate") {
  CHECK(complaint(RmsNormArgs{floats({2, 8}), floats({8}), 1e-5f, floats({2, 8})}) == "");
  CHECK(complaint(RmsNormArgs{floats({2, 8}), Tensor(), 1e-5f, floats({2, 8})}) ==
        "rms_norm: weight is none; expected float32 [8]");
  CHECK(complaint(RmsNormArgs{floats({2, 8}), floats({8}), -1.0f, floats({2, 8})}) ==
        "rms_norm: eps is -1; expected 0 or more");
  CHECK(complaint(LayerNormArgs{floats({2, 8}), floats({8}), Tensor(), 0.0f, floats({2, 8})}) ==
        "");
  CHECK(complaint(LayerNormArgs{floats({2, 8}), floats({8}), floats({7}), 0.0f, floats({2, 8})}) ==
        "layer_norm: bias is float32 [7]; expected float32 [8]");
  CHECK(complaint(GateArgs{floats({2, 8}), floats({2, 8}), Activation::kSilu, floats({2, 8})}) ==
        "");
  CHECK(complaint(GateArgs{floats({2, 8}), floats({2, 7}), Activation::kSilu, floats({2, 8})}) ==
        "gate: up is float32 [2, 7]; expected float32 [2, 8]");
}

TEST_CASE("check_args of gated_mlp") {
  const EmptyWeight gate_up(12, 4), down(4, 6);
  const GatedMlpArgs good{.x = floats({3, 4}),
                          .gate_up = &gate_up,
                          .down = &down,
                          .activation = Activation::kSilu,
                          .scratch = floats({3, 12}),
                          .out = floats({3, 4})};
  CHECK(complaint(good) == "");
  GatedMlpArgs bad = good;
  bad.scratch = floats({3, 6});
  CHECK(complaint(bad) == "gated_mlp: gate_up is [12, 4]; expected a weight of [6, 4]");
  bad = good;
  bad.down = &gate_up;
  CHECK(complaint(bad) == "gated_mlp: down is [12, 4]; expected a weight of [4, 6]");
  bad = good;
  bad.residual = floats({1, 4});
  CHECK(complaint(bad) == "gated_mlp: residual is float32 [1, 4]; expected float32 [3, 4]");
}

TEST_CASE("check_args of rope_store and attention") {
  int memory = 0;
  const KvLayer kv{&memory, {16, 2, 8, DType::kFloat32}};
  const RopeStoreArgs good{.q = floats({3, 4, 8}),
                           .k = floats({3, 2, 8}),
                           .v = floats({3, 2, 8}),
                           .cos_sin = floats({100, 8}),
                           .cos_sin_rows = ints({3}),
                           .slots = ints({3}),
                           .kv = kv};
  CHECK(complaint(good) == "");
  RopeStoreArgs bad = good;
  bad.q = floats({3, 3, 8});
  CHECK(complaint(bad) == "rope_store: heads of q is 3; expected a multiple of kv.shape.kv_heads");
  bad = good;
  bad.cos_sin = floats({100, 10});
  CHECK(complaint(bad) ==
        "rope_store: columns of cos_sin is 10; expected an even number from 2 to head_dim");
  bad = good;
  bad.cos_sin_rows = Tensor();
  CHECK(complaint(bad) == "rope_store: cos_sin_rows is none; expected int32 [3]");
  bad.cos_sin = Tensor();  // no rotation
  CHECK(complaint(bad) == "");
  bad = good;
  bad.kv.data = nullptr;
  CHECK(complaint(bad) == "rope_store: kv.data is null; expected the memory of one layer's blocks");
  const AttentionArgs attention{
      .q = floats({3, 4, 8}), .kv = kv, .scale = 1.0f, .out = floats({3, 32})};
  CHECK(complaint(attention) == "");
  AttentionArgs bad_attention = attention;
  bad_attention.out = floats({3, 4, 8});
  CHECK(complaint(bad_attention) ==
        "attention: out is float32 [3, 4, 8]; expected float32 [3, 32]");
  bad_attention = attention;
  bad_attention.window = -1;
  CHECK(complaint(bad_attention) == "attention: window is -1; expected 0 or more");
}

TEST_CASE("check_args of gather_rows and sample") {
  CHECK(complaint(GatherRowsArgs{floats({9, 4}), ints({2}), floats({2, 4})}) == "");
  CHECK(complaint(GatherRowsArgs{floats({9, 4}), ints({2}), floats({3, 4})}) ==
        "gather_rows: out is float32 [3, 4]; expected float32 [2, 4]");
  const std::vector<SampleRow> rows(2);
  CHECK(complaint(SampleArgs{floats({2, 50}), rows, ints({2})}) == "");
  CHECK(complaint(SampleArgs{floats({3, 50}), rows, ints({2})}) ==
        "sample: logits is float32 [3, 50]; expected float32 [2, 50]");
  CHECK(complaint(SampleArgs{floats({2, 50}), rows, floats({2})}) ==
        "sample: out is float32 [2]; expected int32 [2]");
}

}  // namespace
}  // namespace octavo::test
