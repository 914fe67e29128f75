// Linear of bfloat16 by the dot products of an instruction set.
// clang-format off
#include "cpu/kernels.inc"
#include "cpu/linear_task.h"
#include "cpu/rounded_rows.h"
#include "cpu/bfloat16_pairs.h"
#include "cpu/bfloat16_kernel.h"
// clang-format on

namespace octavo::OCTAVO_ISA_NAMESPACE {

void add_bfloat16(KernelTable& table) {
  table.linear[static_cast<int>(WeightForm::kBFloat16)] = linear_bfloat16;
  table.prepared_row[static_cast<int>(WeightForm::kBFloat16)] = {round_row, rounded_row_bytes};
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
