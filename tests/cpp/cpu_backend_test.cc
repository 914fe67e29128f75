// What is the CPU back end's own: the choice of kernels, and bits that depend on neither the batch
// nor the threads, over many blocks of input features and many chunks of keys. That its words are
// right is tested in ops/, against ref.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "amx_model.h"
#include "backend/registry.h"
#include "cpu/cpu_backend.h"
#include "cpu/isa.h"
#include "octavo/engine.h"

namespace octavo {
namespace {

// Sets OCTAVO_ISA for its life.
class ForcedIsa {
 public:
  explicit ForcedIsa(const std::string& isa) {
    const char* before = std::getenv("OCTAVO_ISA");
    if (before != nullptr) before_ = before;
    setenv("OCTAVO_ISA", isa.c_str(), 1);
  }
  ~ForcedIsa() {
    before_.empty() ? unsetenv("OCTAVO_ISA") : setenv("OCTAVO_ISA", before_.c_str(), 1);
  }

 private:
  std::string before_;
};

std::unique_ptr<Backend> make_backend_of(const std::string& isa, int32_t threads) {
  const ForcedIsa forced(isa);
  return make_cpu_backend(threads);
}

using Floats = std::vector<float>;

Floats random_floats(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  Floats values(count);
  for (float& value : values) value = normal(random);
  return values;
}

bool same_bits(const float* a, const float* b, size_t count) {
  return std::memcmp(a, b, count * sizeof(float)) == 0;
}

TEST_CASE("an instruction set can be forced, and a wrong one names those there are") {
  const std::vector<std::string> isas = available_isas();
  CHECK(isas.back() == "generic");
  CHECK(cpu_isas() == isas);
  for (const std::string& isa : isas) {
    const DeviceInfo info = make_backend_of(isa, 2)->info();
    CHECK(info.isa == isa);
    CHECK(info.num_threads == 2);
    CHECK(info.name == "cpu");
  }
  try {
    make_backend_of("z80", 1);
    FAIL("an unknown instruction set was taken");
  } catch (const InvalidArgument& error) {
    const std::string message = error.what();
    CHECK(message.find("OCTAVO_ISA: 'z80'") == 0);
    CHECK(message.find("expected one of") != std::string::npos);
    for (const std::string& isa : isas) CHECK(message.find(isa) != std::string::npos);
  }
  CHECK(make_backend_of("", 1)->info().isa == isas.front());
}

TEST_CASE("without a number of threads the machine's default is taken") {
  CHECK(make_cpu_backend(0)->info().num_threads == default_num_threads());
  CHECK_THROWS_AS(make_cpu_backend(-1), InvalidArgument);
}

struct LinearCase {
  int64_t in, out;
  DType dtype;
};

// x [rows, in] times a weight, on `backend`, in batches of `batch` rows.
Floats multiply(Backend& backend, const PackedWeight& weight, Floats x, Floats bias,
                int64_t batch) {
  const int64_t in = weight.in_features(), out = weight.out_features();
  const auto rows = static_cast<int64_t>(x.size()) / in;
  Floats y(static_cast<size_t>(rows * out));
  const Tensor all_x(x.data(), DType::kFloat32, {rows, in});
  const Tensor all_y(y.data(), DType::kFloat32, {rows, out});
  for (int64_t begin = 0; begin < rows; begin += batch) {
    const int64_t end = std::min(begin + batch, rows);
    backend.linear({.x = all_x.rows(begin, end),
                    .weight = &weight,
                    .bias = Tensor(bias.data(), DType::kFloat32, {out}),
                    .activation = Activation::kGelu,
                    .out = all_y.rows(begin, end)});
  }
  return y;
}

TEST_CASE("linear: a row's bits depend on neither the batch nor the threads") {
  constexpr int64_t kRows = 150;  // more than one task's
  for (const KernelTable* kernels : test::tested_kernels()) {
    for (const LinearCase& shape :
         {LinearCase{1, 33, DType::kFloat32}, LinearCase{576, 200, DType::kFloat32},
          LinearCase{1000, 321, DType::kBFloat16}, LinearCase{513, 40, DType::kFloat16}}) {
      CAPTURE(kernels->isa);
      CAPTURE(shape.in);
      const Floats values = random_floats(static_cast<size_t>(shape.in * shape.out), 1);
      WeightSegment segment;
      segment.matrix = {.scheme = Scheme::kF32,
                        .rows = shape.out,
                        .cols = shape.in,
                        .data = reinterpret_cast<const std::byte*>(values.data())};
      const Floats x = random_floats(static_cast<size_t>(kRows * shape.in), 2);
      const Floats bias = random_floats(static_cast<size_t>(shape.out), 3);
      Floats expected;
      for (const int32_t threads : {1, 2}) {
        const auto backend = std::make_unique<CpuBackend>(*kernels, threads);
        const auto weight = backend->pack(std::span(&segment, 1), shape.dtype);
        for (const int64_t batch : {1, 2, 3, 5, 7, 12, 17, 64, 97, 150}) {
          const Floats y = multiply(*backend, *weight, x, bias, batch);
          if (expected.empty()) expected = y;
          CAPTURE(threads);
          CAPTURE(batch);
          CHECK(same_bits(y.data(), expected.data(), expected.size()));
        }
      }
    }
  }
}

// One sequence, whose tokens are stored and attended to in chunks.
struct Sequence {
  int32_t tokens, heads, head_dim, block_size, window;
  KvShape kv;
  Floats q, k, v;  // [tokens, heads or kv_heads, head_dim]
};

Sequence make_sequence(int32_t tokens, int32_t group, int32_t kv_heads, int32_t head_dim,
                       int32_t block_size, int32_t window, DType dtype) {
  const int32_t heads = group * kv_heads;
  const auto count = [&](int32_t n) { return static_cast<size_t>(tokens) * n * head_dim; };
  return {
      .tokens = tokens,
      .heads = heads,
      .head_dim = head_dim,
      .block_size = block_size,
      .window = window,
      .kv = {.block_size = block_size, .kv_heads = kv_heads, .head_dim = head_dim, .dtype = dtype},
      .q = random_floats(count(heads), 4),
      .k = random_floats(count(kv_heads), 5),
      .v = random_floats(count(kv_heads), 6)};
}

// A cache full of NaN, as blocks are that other sequences left behind.
Buffer make_cache(Backend& backend, const KvShape& shape, int32_t blocks) {
  Buffer cache = backend.allocate(backend.kv_block_bytes(shape) * static_cast<size_t>(blocks));
  std::memset(cache.data(), 0xff, cache.bytes());
  return cache;
}

// The outputs of all tokens, `chunk` of them a step; blocks in an order of their own.
Floats attend(Backend& backend, Sequence s, int32_t chunk) {
  const int32_t blocks = (s.tokens + s.block_size - 1) / s.block_size;
  const Buffer cache = make_cache(backend, s.kv, blocks + 1);
  std::vector<int32_t> table(static_cast<size_t>(blocks));
  for (int32_t i = 0; i < blocks; ++i) table[static_cast<size_t>(i)] = blocks - i;
  Floats out(s.q.size());
  const Tensor q(s.q.data(), DType::kFloat32, {s.tokens, s.heads, s.head_dim});
  const Tensor k(s.k.data(), DType::kFloat32, {s.tokens, s.kv.kv_heads, s.head_dim});
  const Tensor v(s.v.data(), DType::kFloat32, {s.tokens, s.kv.kv_heads, s.head_dim});
  const Tensor all_out(out.data(), DType::kFloat32, {s.tokens, int64_t{s.heads} * s.head_dim});
  for (int32_t begin = 0; begin < s.tokens; begin += chunk) {
    const int32_t end = std::min(begin + chunk, s.tokens);
    std::vector<int32_t> slots;
    for (int32_t token = begin; token < end; ++token) {
      slots.push_back(table[static_cast<size_t>(token / s.block_size)] * s.block_size +
                      token % s.block_size);
    }
    const std::vector<int32_t> query_start = {0, end - begin}, context_len = {end};
    // Blocks that the context has not reached yet do not exist.
    std::vector<int32_t> reached = table;
    const auto used = static_cast<size_t>((end + s.block_size - 1) / s.block_size);
    std::fill(reached.begin() + static_cast<int64_t>(used), reached.end(), 1 << 28);
    backend.begin_step({.num_tokens = end - begin,
                        .block_size = s.block_size,
                        .query_start = query_start,
                        .context_len = context_len,
                        .block_tables = reached,
                        .max_blocks = blocks});
    const KvLayer layer{cache.data(), s.kv};
    backend.rope_store({.q = q.rows(begin, end),
                        .k = k.rows(begin, end),
                        .v = v.rows(begin, end),
                        .slots = Tensor(slots.data(), DType::kInt32, {end - begin}),
                        .kv = layer});
    backend.attention({.q = q.rows(begin, end),
                       .kv = layer,
                       .scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim)),
                       .window = s.window,
                       .out = all_out.rows(begin, end)});
  }
  return out;
}

TEST_CASE("attention: a token's bits depend on neither the chunk nor the threads") {
  const std::vector<Sequence> sequences = {
      make_sequence(200, 3, 2, 64, 16, 0, DType::kFloat32),
      make_sequence(150, 1, 2, 80, 16, 0, DType::kBFloat16),
      make_sequence(139, 8, 1, 20, 16, 70, DType::kFloat16),
      make_sequence(139, 2, 1, 40, 5, 0, DType::kBFloat16),
      make_sequence(131, 4, 1, 33, 32, 9, DType::kFloat32),
  };
  for (const std::string& isa : available_isas()) {
    for (const Sequence& sequence : sequences) {
      CAPTURE(isa);
      CAPTURE(sequence.head_dim);
      Floats expected;
      for (const int32_t threads : {1, 2}) {
        const auto backend = make_backend_of(isa, threads);
        for (const int32_t chunk : {1, 7, 16, 64, 65, 1000}) {
          const Floats out = attend(*backend, sequence, chunk);
          if (expected.empty()) expected = out;
          CAPTURE(threads);
          CAPTURE(chunk);
          CHECK(same_bits(out.data(), expected.data(), expected.size()));
        }
      }
      CHECK(std::isfinite(std::accumulate(expected.begin(), expected.end(), 0.0)));
    }
  }
}

}  // namespace
}  // namespace octavo
