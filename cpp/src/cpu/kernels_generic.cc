// The kernels for any processor: vectors of four lanes, which every compiler can lower.
#define OCTAVO_ISA_NAMESPACE generic
#define OCTAVO_ISA_GENERIC
#include "cpu/kernels.inc"

namespace octavo {

const KernelTable& generic_kernels() {
  static constexpr KernelTable kTable = generic::make_table("generic");
  return kTable;
}

}  // namespace octavo
