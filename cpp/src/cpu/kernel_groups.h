// The groups of kernels that are compiled for an instruction set, each of which writes its part of
// a table. An instruction set that adds to another has groups of its own only where its kernels
// differ; kernel_tables.cc composes the tables. Stateless.
#pragma once

#include "cpu/kernel_table.h"

// Those that exist are in kernels.cmake.
#define OCTAVO_DECLARE_KERNEL_GROUPS(isa)                                      \
  namespace octavo::isa {                                                      \
  void add_floats(KernelTable& table);   /* linear of the floating forms */    \
  void add_bfloat16(KernelTable& table); /* by dot products of bfloat16 */     \
  void add_integers(KernelTable& table); /* linear of the forms of integers */ \
  void add_attention(KernelTable& table);                                      \
  void add_rows(KernelTable& table); /* words of one row, and packing */       \
  }

OCTAVO_DECLARE_KERNEL_GROUPS(generic)
#if defined(__x86_64__)
OCTAVO_DECLARE_KERNEL_GROUPS(avx2)
OCTAVO_DECLARE_KERNEL_GROUPS(avx512)
OCTAVO_DECLARE_KERNEL_GROUPS(avx512_vnni)
OCTAVO_DECLARE_KERNEL_GROUPS(avx512_bf16)
OCTAVO_DECLARE_KERNEL_GROUPS(avx512_amx)
OCTAVO_DECLARE_KERNEL_GROUPS(avx512_amx_model)  // of the tests: AMX in software
#elif defined(__aarch64__)
OCTAVO_DECLARE_KERNEL_GROUPS(neon)
OCTAVO_DECLARE_KERNEL_GROUPS(neon_dot)
OCTAVO_DECLARE_KERNEL_GROUPS(neon_bf16)
#endif
