#include "cpu/isa.h"

#include <cstdlib>

#include "base/check.h"
#include "octavo/engine.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace octavo {
namespace {

using Tables = std::vector<const KernelTable*>;

#if defined(__x86_64__)
struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};
Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);  // 0 where there is no leaf
  return r;
}

// The register state that the operating system saves, asked of it without -mxsave.
uint64_t enabled_state() {
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Tiles are state that Linux gives to a process that asks for it.
bool request_tiles() {
#if defined(SYS_arch_prctl)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

// Each but AVX2 needs the one before it.
Tables detect_tables() {
  constexpr uint32_t kLeaf1 = (1u << 12) | (1u << 27) | (1u << 28) | (1u << 29);  // FMA to F16C
  constexpr uint32_t kAvx2 = 1u << 5;
  constexpr uint32_t kAvx512 = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F DQ BW VL
  constexpr uint32_t kAvx512Vnni = 1u << 11, kAvx512Bf16 = 1u << 5;
  constexpr uint32_t kAmx = (1u << 22) | (1u << 24) | (1u << 25);  // BF16 TILE INT8
  constexpr uint64_t kYmmState = 0x6, kZmmState = 0xe6, kTileState = 0x60000;
  Tables tables;
  const auto add = [&tables](bool has, const KernelTable& (*kernels)()) {
    if (has) tables.insert(tables.begin(), &kernels());
    return has;
  };
  const auto has_all = [](uint64_t bits, uint64_t all) { return (bits & all) == all; };
  if (!has_all(cpuid(1, 0).ecx, kLeaf1)) return tables;
  const uint64_t state = enabled_state();
  const Registers leaf = cpuid(7, 0);
  if (add(has_all(state, kYmmState) && has_all(leaf.ebx, kAvx2), avx2_kernels) &&
      add(has_all(state, kZmmState) && has_all(leaf.ebx, kAvx512), avx512_kernels) &&
      add(has_all(leaf.ecx, kAvx512Vnni), avx512_vnni_kernels) &&
      add(has_all(cpuid(7, 1).eax, kAvx512Bf16), avx512_bf16_kernels)) {
    add(has_all(state, kTileState) && has_all(leaf.edx, kAmx) && request_tiles(),
        avx512_amx_kernels);
  }
  return tables;
}
#elif defined(__aarch64__)
Tables detect_tables() {
  constexpr unsigned long kDotProducts = 1ul << 20, kBfloat16 = 1ul << 14;  // HWCAP_, HWCAP2_
  Tables tables = {&neon_kernels()};
  if ((getauxval(AT_HWCAP) & kDotProducts) == 0) return tables;
  tables.insert(tables.begin(), &neon_dot_kernels());
  if ((getauxval(AT_HWCAP2) & kBfloat16) == 0) return tables;
  tables.insert(tables.begin(), &neon_bf16_kernels());
  return tables;
}
#else
Tables detect_tables() { return {}; }
#endif

const Tables& all_tables() {
  static const Tables tables = [] {
    Tables detected = detect_tables();
    detected.push_back(&generic_kernels());
    return detected;
  }();
  return tables;
}

}  // namespace

std::vector<const KernelTable*> available_kernels() { return all_tables(); }

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const KernelTable* table : all_tables()) names.emplace_back(table->isa);
  return names;
}

const KernelTable& kernels_for_isa(std::string_view isa) {
  std::string available;
  for (const KernelTable* table : all_tables()) {
    if (isa == table->isa) return *table;
    available += str_cat(available.empty() ? "" : ", ", table->isa);
  }
  throw InvalidArgument(
      str_cat("OCTAVO_ISA: '", isa, "' cannot be used here; expected one of ", available));
}

const KernelTable& active_kernels() {
  const char* forced = std::getenv("OCTAVO_ISA");
  if (forced != nullptr && *forced != '\0') return kernels_for_isa(forced);
  return *all_tables().front();
}

std::vector<std::string> cpu_isas() { return available_isas(); }

}  // namespace octavo
