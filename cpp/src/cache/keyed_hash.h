// SipHash-1-3 (Aumasson and Bernstein, 2012) over a parent id and token ids. The key is secret and
// random, so nobody can craft prompts that collide and turn look-ups into a linear search.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <span>

namespace octavo {

class KeyedHash {
 public:
  using Key = std::array<uint64_t, 2>;

  explicit KeyedHash(Key key) : key_(key) {}

  uint64_t operator()(uint64_t parent, std::span<const int32_t> tokens) const {
    State s = {key_[0] ^ 0x736f6d6570736575, key_[1] ^ 0x646f72616e646f6d,
               key_[0] ^ 0x6c7967656e657261, key_[1] ^ 0x7465646279746573};
    compress(s, parent);
    size_t i = 0;
    for (; i + 1 < tokens.size(); i += 2) compress(s, word(tokens[i + 1], tokens[i]));
    if (i < tokens.size()) compress(s, word(0, tokens[i]));
    compress(s, tokens.size());
    s[2] ^= 0xff;
    for (int round = 0; round < 3; ++round) mix(s);
    return s[0] ^ s[1] ^ s[2] ^ s[3];
  }

 private:
  using State = std::array<uint64_t, 4>;

  static uint64_t word(int32_t high, int32_t low) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(high)) << 32) | static_cast<uint32_t>(low);
  }

  static void compress(State& s, uint64_t word) {
    s[3] ^= word;
    mix(s);
    s[0] ^= word;
  }

  static void mix(State& s) {
    s[0] += s[1], s[1] = std::rotl(s[1], 13) ^ s[0], s[0] = std::rotl(s[0], 32);
    s[2] += s[3], s[3] = std::rotl(s[3], 16) ^ s[2];
    s[0] += s[3], s[3] = std::rotl(s[3], 21) ^ s[0];
    s[2] += s[1], s[1] = std::rotl(s[1], 17) ^ s[2], s[2] = std::rotl(s[2], 32);
  }

  Key key_;
};

}  // namespace octavo
