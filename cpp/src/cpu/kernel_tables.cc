// The tables of all instruction sets, composed of the groups of kernels that were compiled.
#include <initializer_list>

#include "cpu/kernel_groups.h"
#include "cpu/kernel_table.h"

namespace octavo {
namespace {

// `base` with another name and other groups.
KernelTable make_table(const char* isa, KernelTable base,
                       std::initializer_list<void (*)(KernelTable&)> groups) {
  base.isa = isa;
  for (const auto add : groups) add(base);
  return base;
}

}  // namespace

const KernelTable& generic_kernels() {
  using namespace generic;
  static const KernelTable kTable =
      make_table("generic", {}, {add_floats, add_integers, add_attention, add_rows});
  return kTable;
}

#if defined(__x86_64__)
const KernelTable& avx2_kernels() {
  using namespace avx2;
  static const KernelTable kTable =
      make_table("avx2", {}, {add_floats, add_integers, add_attention, add_rows});
  return kTable;
}

const KernelTable& avx512_kernels() {
  using namespace avx512;
  static const KernelTable kTable =
      make_table("avx512", {}, {add_floats, add_integers, add_attention, add_rows});
  return kTable;
}

const KernelTable& avx512_vnni_kernels() {
  static const KernelTable kTable =
      make_table("avx512_vnni", avx512_kernels(), {avx512_vnni::add_integers});
  return kTable;
}

const KernelTable& avx512_bf16_kernels() {
  static const KernelTable kTable =
      make_table("avx512_bf16", avx512_vnni_kernels(),
                 {avx512_bf16::add_bfloat16, avx512_bf16::add_attention});
  return kTable;
}

const KernelTable& avx512_amx_kernels() {
  static const KernelTable kTable = make_table(
      "avx512_amx", avx512_bf16_kernels(), {avx512_amx::add_bfloat16, avx512_amx::add_integers});
  return kTable;
}
#elif defined(__aarch64__)
const KernelTable& neon_kernels() {
  using namespace neon;
  static const KernelTable kTable =
      make_table("neon", {}, {add_floats, add_integers, add_attention, add_rows});
  return kTable;
}

const KernelTable& neon_dot_kernels() {
  static const KernelTable kTable =
      make_table("neon_dot", neon_kernels(), {neon_dot::add_integers});
  return kTable;
}

const KernelTable& neon_bf16_kernels() {
  static const KernelTable kTable =
      make_table("neon_bf16", neon_dot_kernels(), {neon_bf16::add_bfloat16});
  return kTable;
}
#endif

}  // namespace octavo
