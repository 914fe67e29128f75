// Linear of the floating forms, in float32 arithmetic.
// clang-format off
#include "cpu/kernels.inc"
#include "cpu/linear_task.h"
#include "cpu/linear_kernel.h"
// clang-format on

namespace octavo::OCTAVO_ISA_NAMESPACE {

void add_floats(KernelTable& table) {
  table.linear[static_cast<int>(WeightForm::kFloat32)] = linear<float>;
  table.linear[static_cast<int>(WeightForm::kFloat16)] = linear<Float16>;
  table.linear[static_cast<int>(WeightForm::kBFloat16)] = linear<BFloat16>;
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
