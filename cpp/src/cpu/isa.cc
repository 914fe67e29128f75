#include "cpu/isa.h"

#include <cstdlib>

#include "base/check.h"
#include "octavo/engine.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace octavo {
namespace {

struct Features {
  bool avx2 = false;    // with FMA and F16C
  bool avx512 = false;  // F, BW, DQ and VL
};

#if defined(__x86_64__)
// The register state that the operating system saves, asked of it without -mxsave.
uint64_t enabled_state() {
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

Features detect_features() {
  constexpr uint32_t kFma = 1u << 12, kOsxsave = 1u << 27, kAvx = 1u << 28, kF16c = 1u << 29;
  constexpr uint32_t kAvx2 = 1u << 5;
  constexpr uint32_t kAvx512 = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F DQ BW VL
  constexpr uint64_t kYmmState = 0x6, kZmmState = 0xe6;
  constexpr uint32_t kLeaf1 = kFma | kOsxsave | kAvx | kF16c;
  Features features;
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & kLeaf1) != kLeaf1) return features;
  const uint64_t state = enabled_state();
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return features;
  features.avx2 = (state & kYmmState) == kYmmState && (ebx & kAvx2) != 0;
  features.avx512 = features.avx2 && (state & kZmmState) == kZmmState && (ebx & kAvx512) == kAvx512;
  return features;
}
#endif

std::vector<const KernelTable*> available_tables() {
  std::vector<const KernelTable*> tables;
#if defined(__x86_64__)
  static const Features features = detect_features();
  if (features.avx512) tables.push_back(&avx512_kernels());
  if (features.avx2) tables.push_back(&avx2_kernels());
#endif
  tables.push_back(&generic_kernels());
  return tables;
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const KernelTable* table : available_tables()) names.emplace_back(table->isa);
  return names;
}

const KernelTable& kernels_for_isa(std::string_view isa) {
  std::string available;
  for (const KernelTable* table : available_tables()) {
    if (isa == table->isa) return *table;
    available += str_cat(available.empty() ? "" : ", ", table->isa);
  }
  throw InvalidArgument(
      str_cat("OCTAVO_ISA: '", isa, "' cannot be used here; expected one of ", available));
}

const KernelTable& active_kernels() {
  const char* forced = std::getenv("OCTAVO_ISA");
  if (forced != nullptr && *forced != '\0') return kernels_for_isa(forced);
  return *available_tables().front();
}

std::vector<std::string> cpu_isas() { return available_isas(); }

}  // namespace octavo
