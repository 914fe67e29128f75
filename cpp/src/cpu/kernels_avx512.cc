// The kernels for x86-64 with AVX-512 F, BW, DQ and VL (flags: kernels.cmake).
#if defined(__x86_64__)
#define OCTAVO_ISA_NAMESPACE avx512
#define OCTAVO_ISA_AVX512
#include "cpu/kernels.inc"

namespace octavo {

const KernelTable& avx512_kernels() {
  static constexpr KernelTable kTable = avx512::make_table("avx512");
  return kTable;
}

}  // namespace octavo
#endif  // __x86_64__
