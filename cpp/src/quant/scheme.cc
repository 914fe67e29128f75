#include "quant/scheme.h"

#include <array>

namespace octavo {
namespace {

// In the order of Scheme. Bytes of a block: half-precision scales, then packed integers; the "K"
// forms have 256 elements in 8 or 16 groups with scales of their own.
constexpr std::array<SchemeInfo, 11> kSchemes = {{
    {"F32", 1, 4},
    {"F16", 1, 2},
    {"BF16", 1, 2},
    {"Q8_0", 32, 2 + 32},
    {"Q4_0", 32, 2 + 16},
    {"Q4_1", 32, 2 + 2 + 16},
    {"Q5_0", 32, 2 + 4 + 16},
    {"Q5_1", 32, 2 + 2 + 4 + 16},
    {"Q4_K", 256, 2 + 2 + 12 + 128},
    {"Q5_K", 256, 2 + 2 + 12 + 32 + 128},
    {"Q6_K", 256, 128 + 64 + 16 + 2},
}};
static_assert(kSchemes.size() == static_cast<size_t>(Scheme::kQ6_K) + 1);

}  // namespace

const SchemeInfo& scheme_info(Scheme scheme) { return kSchemes[static_cast<size_t>(scheme)]; }

}  // namespace octavo
