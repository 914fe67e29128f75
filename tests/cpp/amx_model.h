// The kernels of AMX on tiles in software: a table that only the tests have, for machines that have
// AVX-512 but no AMX.
#pragma once

#include <vector>

#include "cpu/isa.h"
#include "cpu/kernel_groups.h"

namespace octavo::test {

#if defined(__x86_64__)
inline const KernelTable& amx_model_kernels() {
  static const KernelTable kTable = [] {
    KernelTable table = avx512_kernels();
    table.isa = "avx512_amx_model";
    avx512_amx_model::add_bfloat16(table);
    avx512_amx_model::add_integers(table);
    return table;
  }();
  return kTable;
}
#endif

// Those of available_kernels(), and the model where it can run.
inline std::vector<const KernelTable*> tested_kernels() {
  std::vector<const KernelTable*> tables = available_kernels();
#if defined(__x86_64__)
  for (const KernelTable* table : available_kernels()) {
    if (table == &avx512_kernels()) tables.push_back(&amx_model_kernels());
  }
#endif
  return tables;
}

}  // namespace octavo::test
