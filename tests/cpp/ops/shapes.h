// The shapes that every word is tested with: one, odd, around the multiples of tiles and registers,
// large enough for several tiles and threads, and empty.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tensor/dtype.h"

namespace octavo::test {

inline constexpr std::array<DType, 3> kFloatingDTypes = {DType::kFloat32, DType::kBFloat16,
                                                         DType::kFloat16};

// Rows of a ragged batch.
inline constexpr std::array<int64_t, 11> kTokens = {0, 1, 2, 3, 4, 5, 7, 8, 16, 33, 67};
// Columns of an elementwise or normalised row.
inline constexpr std::array<int64_t, 12> kWidths = {1, 2, 3, 7, 8, 15, 16, 17, 33, 64, 100, 577};

struct LinearShape {
  int64_t tokens, in, out;
};
inline const std::vector<LinearShape> kLinearShapes = {
    {0, 16, 16},    {1, 1, 1},     {1, 1, 7},      {1, 7, 1},     {2, 3, 5},     {1, 16, 16},
    {1, 31, 33},    {1, 64, 100},  {1, 257, 129},  {1, 576, 576}, {3, 17, 15},   {4, 32, 48},
    {5, 63, 65},    {6, 64, 64},   {7, 100, 20},   {8, 128, 96},  {13, 80, 257}, {16, 256, 31},
    {17, 33, 1},    {31, 1, 17},   {33, 129, 66},  {64, 64, 64},  {67, 191, 97}, {128, 48, 130},
    {1, 1536, 576}, {2, 2048, 40}, {37, 1000, 72}, {260, 24, 40}, {1, 64, 3001}, {9, 40, 1030},
};

// GQA: query heads of one KV head.
inline constexpr std::array<int32_t, 8> kGroups = {1, 2, 3, 4, 5, 6, 7, 8};
inline constexpr std::array<int32_t, 7> kHeadDims = {8, 20, 64, 80, 96, 128, 256};

}  // namespace octavo::test
