// The kernels for x86-64 with AVX2, FMA and F16C (flags: kernels.cmake).
#if defined(__x86_64__)
#define OCTAVO_ISA_NAMESPACE avx2
#define OCTAVO_ISA_AVX2
#include "cpu/kernels.inc"

namespace octavo {

const KernelTable& avx2_kernels() {
  static constexpr KernelTable kTable = avx2::make_table("avx2");
  return kTable;
}

}  // namespace octavo
#endif  // __x86_64__
