#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <cstring>
#include <utility>
#include <vector>

#include "octavo/error.h"
#include "quant/decode.h"
#include "tensor/dtype.h"

namespace octavo {
namespace {

// What the decoder of ggml's own Python package (gguf 0.19.0, quants.dequantize) makes of the
// blocks of `random_blocks`: the FNV-1a hash of all values' bits, and some of the values.
struct Golden {
  Scheme scheme;
  uint64_t hash;
  std::array<uint32_t, 5> bits;  // of elements 0, 1, 17, n / 2 + 5 and n - 1
};
constexpr Golden kGolden[] = {
    {Scheme::kF32,
     0xf08917793640eb8eu,
     {0x3feba5fcu, 0xbe898421u, 0xbe8dbe8eu, 0xbda9868fu, 0x3f2690e0u}},
    {Scheme::kF16,
     0xa4fe98d460b44325u,
     {0xbcbf8000u, 0x3ffd6000u, 0x3f870000u, 0x3d304000u, 0xbcada000u}},
    {Scheme::kBF16,
     0x42fbb8ca67382325u,
     {0xa5fc0000u, 0x7feb0000u, 0x1c380000u, 0x69820000u, 0xc56d0000u}},
    {Scheme::kQ8_0,
     0x936c8cea6eec75e5u,
     {0x3efb5800u, 0xc03e0100u, 0x3def6000u, 0xbeff2000u, 0xc11b2900u}},
    {Scheme::kQ4_0,
     0x2583d78ae91db325u,
     {0xbd8fa000u, 0xbe279000u, 0x3cbf8000u, 0xc0644800u, 0x3e4ca000u}},
    {Scheme::kQ4_1,
     0xdcc24244339bba49u,
     {0x3ffa6200u, 0x3ff16800u, 0x3fe57000u, 0x409ff7c0u, 0x3c928000u}},
    {Scheme::kQ5_0,
     0x0328d0c5f6d8dd25u,
     {0xbe577000u, 0xbd3f8000u, 0x3e279000u, 0x40872400u, 0x3f3f4000u}},
    {Scheme::kQ5_1,
     0x8fd7b902713b462du,
     {0x3fb29200u, 0x3fd07e00u, 0x3fe27200u, 0x3ea8b000u, 0x3f8cff00u}},
    {Scheme::kQ4_K,
     0x3bb8a472ac6c4eadu,
     {0xc2a87d60u, 0xc2b97608u, 0xc2ab9350u, 0xc2901338u, 0xc0873b00u}},
    {Scheme::kQ5_K,
     0x7f2352618d988acau,
     {0xc2b03438u, 0xc2d22588u, 0xc2a87d60u, 0x438be96cu, 0xc185ab98u}},
    {Scheme::kQ6_K,
     0xe2356d4f74201863u,
     {0xc4ad52c0u, 0xc4106fa0u, 0xc499ebe0u, 0x40d25af0u, 0x442dee90u}},
};

std::vector<int> half_offsets(Scheme scheme) {
  switch (scheme) {
    case Scheme::kF32:
    case Scheme::kBF16: return {};
    case Scheme::kQ4_1:
    case Scheme::kQ5_1:
    case Scheme::kQ4_K:
    case Scheme::kQ5_K: return {0, 2};
    case Scheme::kQ6_K: return {208};
    default: return {0};
  }
}

int64_t num_blocks(Scheme scheme) {
  return scheme_info(scheme).block_elements == 1 ? 64 * 256 : 64;
}

// Bytes of a linear congruential generator; exponents are then bounded, so that no value is NaN or
// infinite (but in BF16, which is a plain shift).
std::vector<std::byte> random_blocks(Scheme scheme) {
  const SchemeInfo& info = scheme_info(scheme);
  std::vector<std::byte> data(static_cast<size_t>(num_blocks(scheme) * info.block_bytes));
  uint64_t state = 0x0c7a0;
  for (std::byte& byte : data) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<std::byte>(state >> 56);
  }
  for (int64_t i = 0; i < num_blocks(scheme); ++i) {
    std::byte* block = data.data() + i * info.block_bytes;
    if (scheme == Scheme::kF32) {
      block[3] = (block[3] & std::byte{0x80}) | std::byte{0x3c} | (block[3] & std::byte{3});
    }
    for (int offset : half_offsets(scheme)) {
      const int high = std::to_integer<int>(block[offset + 1]);
      block[offset + 1] = static_cast<std::byte>((high & 0x83) | ((8 + ((high >> 2) & 7)) << 2));
    }
  }
  return data;
}

std::vector<float> decode_all(Scheme scheme, const std::byte* data) {
  std::vector<float> values(
      static_cast<size_t>(num_blocks(scheme) * scheme_info(scheme).block_elements));
  decode_blocks(scheme, data, num_blocks(scheme), values.data());
  return values;
}

uint64_t hash_bits(const std::vector<float>& values) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (float value : values) hash = (hash ^ std::bit_cast<uint32_t>(value)) * 0x100000001b3u;
  return hash;
}

TEST_CASE("every scheme decodes to the bits of ggml's own decoder") {
  CHECK(std::size(kGolden) == static_cast<size_t>(Scheme::kQ6_K) + 1);
  for (const Golden& golden : kGolden) {
    CAPTURE(scheme_info(golden.scheme).name);
    const std::vector<std::byte> data = random_blocks(golden.scheme);
    const std::vector<float> values = decode_all(golden.scheme, data.data());
    const size_t n = values.size();
    const size_t places[] = {0, 1, 17, n / 2 + 5, n - 1};
    for (size_t i = 0; i < 5; ++i) {
      CAPTURE(values[places[i]]);
      CHECK(std::bit_cast<uint32_t>(values[places[i]]) == golden.bits[i]);
    }
    CHECK(hash_bits(values) == golden.hash);
  }
}

TEST_CASE("data at an odd address decodes alike") {
  for (const Golden& golden : kGolden) {
    CAPTURE(scheme_info(golden.scheme).name);
    const std::vector<std::byte> data = random_blocks(golden.scheme);
    std::vector<std::byte> shifted(data.size() + 1);
    std::memcpy(shifted.data() + 1, data.data(), data.size());
    CHECK(hash_bits(decode_all(golden.scheme, shifted.data() + 1)) == golden.hash);
  }
}

TEST_CASE("a row is the part of the matrix that it names") {
  for (const Golden& golden : kGolden) {
    const SchemeInfo& info = scheme_info(golden.scheme);
    CAPTURE(info.name);
    const std::vector<std::byte> data = random_blocks(golden.scheme);
    const std::vector<float> values = decode_all(golden.scheme, data.data());
    const int64_t blocks = num_blocks(golden.scheme);
    const QuantizedMatrix matrix{golden.scheme, blocks / 4, 4 * info.block_elements, data.data()};
    std::vector<float> row(static_cast<size_t>(matrix.cols));
    for (int64_t i : {int64_t{0}, int64_t{3}, matrix.rows - 1}) {
      decode_row(matrix, i, row.data());
      CHECK(std::memcmp(row.data(), values.data() + i * matrix.cols, row.size() * 4) == 0);
    }
    CHECK_THROWS_AS(decode_row(matrix, matrix.rows, row.data()), InternalError);
    CHECK_THROWS_AS(decode_row(matrix, -1, row.data()), InternalError);
  }
}

// Noise as it was first defined: dummy weights stay what they are, on every device.
float noise_by_formula(uint64_t seed, uint64_t index) {
  uint64_t state = seed + index * 0x9e3779b97f4a7c15u;
  state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
  state = (state ^ (state >> 27)) * 0x94d049bb133111ebu;
  state = state ^ (state >> 31);
  const uint64_t sum =
      (state & 0xffff) + ((state >> 16) & 0xffff) + ((state >> 32) & 0xffff) + (state >> 48);
  return (static_cast<float>(sum) - 131070.0f) * (0.02f * 1.7320508f / 65536.0f);
}

TEST_CASE("rows of noise are the formula's, rounded to the scheme") {
  CHECK(noise_by_formula(1, 0) == -0x1.a6c13p-5f);
  const std::pair<Scheme, DType> schemes[] = {{Scheme::kF32, DType::kFloat32},
                                              {Scheme::kF16, DType::kFloat16},
                                              {Scheme::kBF16, DType::kBFloat16}};
  for (const auto& [scheme, dtype] : schemes) {
    CAPTURE(scheme_info(scheme).name);
    for (const uint64_t seed : {uint64_t{1}, uint64_t{0xcbf29ce484222325u}, ~uint64_t{0}}) {
      const int64_t cols = 1037;
      const QuantizedMatrix matrix{.scheme = scheme,
                                   .rows = int64_t{1} << 40,
                                   .cols = cols,
                                   .data = nullptr,
                                   .noise_seed = seed};
      std::vector<float> row(static_cast<size_t>(cols));
      for (int64_t i : {int64_t{0}, int64_t{77}, matrix.rows - 1}) {
        decode_row(matrix, i, row.data());
        std::vector<float> wanted(row.size());
        for (size_t j = 0; j < wanted.size(); ++j) {
          wanted[j] = noise_by_formula(seed, static_cast<uint64_t>(i * cols) + j);
        }
        std::vector<uint32_t> rounded(row.size());
        convert_from_float(wanted.data(), wanted.size(), dtype, rounded.data());
        convert_to_float(dtype, rounded.data(), wanted.size(), wanted.data());
        CHECK(std::memcmp(row.data(), wanted.data(), row.size() * 4) == 0);
      }
      CHECK_THROWS_AS(decode_row(matrix, matrix.rows, row.data()), InternalError);
    }
  }
}

TEST_CASE("no blocks decode to nothing") {
  for (const Golden& golden : kGolden) decode_blocks(golden.scheme, nullptr, 0, nullptr);
}

}  // namespace
}  // namespace octavo
