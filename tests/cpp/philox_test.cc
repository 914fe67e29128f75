#include "base/philox.h"

#include <doctest/doctest.h>

#include <set>

namespace octavo {
namespace {

// The known answers that are published with Random123.
TEST_CASE("philox4x32 gives the published answers") {
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) ==
        PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("philox_uniform is the upper 53 bits of the first block") {
  // Of counter 0 and key 0, above.
  const uint64_t bits = 0x6627e8d5e169c58d;
  CHECK(philox_uniform(0, 0, 0) == static_cast<double>(bits >> 11) / 9007199254740992.0);
}

TEST_CASE("philox_uniform depends on every part of its key") {
  constexpr uint64_t kHigh = uint64_t{1} << 32;
  std::set<double> draws;
  int count = 0;
  for (uint64_t seed : {uint64_t{0}, uint64_t{1}, kHigh, ~uint64_t{0}}) {
    for (uint32_t sample : {0u, 1u, 0xffffffffu}) {
      for (uint64_t position : {uint64_t{0}, uint64_t{1}, kHigh}) {
        draws.insert(philox_uniform(seed, sample, position));
        ++count;
      }
    }
  }
  CHECK(draws.size() == count);
}

TEST_CASE("philox_uniform is uniform on [0, 1)") {
  constexpr int kDraws = 100000, kBins = 20;
  int bins[kBins] = {};
  for (int i = 0; i < kDraws; ++i) {
    const double draw = philox_uniform(7, 3, static_cast<uint64_t>(i));
    REQUIRE(draw >= 0.0);
    REQUIRE(draw < 1.0);
    ++bins[static_cast<int>(draw * kBins)];
  }
  double chi_squared = 0;
  const double expected = static_cast<double>(kDraws) / kBins;
  for (int bin : bins) chi_squared += (bin - expected) * (bin - expected) / expected;
  CHECK(chi_squared < 43.8);  // 19 degrees of freedom: exceeded once in a thousand
}

}  // namespace
}  // namespace octavo
