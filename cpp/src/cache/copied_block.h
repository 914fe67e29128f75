// An order of the block manager to the model runner: before the step's first store, copy one block
// of the KV cache to another. The copies of a step run in the order in which they were given.
#pragma once

#include <cstdint>

namespace octavo {

struct CopiedBlock {
  int32_t source;
  int32_t target;
};

}  // namespace octavo
