// The machine's own limits, measured: how fast all threads together read memory, and multiply and
// add float32 numbers in registers.
#pragma once

#include <cstdint>

namespace octavo::bench {

struct Ceilings {
  double memory;        // bytes a second, read once each from more memory than the caches hold
  double multiply_add;  // float32 operations a second, by the widest vectors of this machine
};

Ceilings measure_ceilings(int32_t threads, double seconds);

}  // namespace octavo::bench
