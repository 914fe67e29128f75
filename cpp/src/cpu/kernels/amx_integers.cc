// Linear of the forms of integers by the tiles of AMX.
// clang-format off
#include "cpu/kernels.inc"
#include "cpu/linear_task.h"
#include "cpu/integer_blocks.h"
#include "cpu/amx_tile.h"
#include "cpu/amx_integer_kernel.h"
// clang-format on

namespace octavo::OCTAVO_ISA_NAMESPACE {

template <WeightForm kForm>
void add_integer_form(KernelTable& table) {
  table.linear[static_cast<int>(kForm)] = linear_integer_tiles<kForm>;
}

void add_integers(KernelTable& table) { OCTAVO_FOR_EACH_INTEGER_FORM(add_integer_form, table); }

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
