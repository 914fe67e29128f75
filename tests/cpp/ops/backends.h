// The back ends present: ref, which is tested against formulas, and all others, which are tested
// against ref. A CPU is one back end for each instruction set that it can run, and for the model of
// AMX, with one thread and with more threads than most machines' share of a small op.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "amx_model.h"
#include "backend/registry.h"
#include "cpu/cpu_backend.h"

namespace octavo::test {

struct NamedBackend {
  std::string name;
  std::string isa;   // back ends of the same one have the same bits, whatever their threads
  bool rounds_rows;  // to bfloat16, before they are multiplied by bfloat16 weights
  std::unique_ptr<Backend> backend;
};

inline Backend& ref() {
  static const std::unique_ptr<Backend> backend = make_ref_backend();
  return *backend;
}

inline std::vector<NamedBackend> make_other_backends() {
  std::vector<NamedBackend> backends;
  for (const KernelTable* kernels : tested_kernels()) {
    const auto& prepared = kernels->prepared_row[static_cast<int>(WeightForm::kBFloat16)];
    for (int32_t threads : {1, 3}) {
      const std::string isa = std::string("cpu/") + kernels->isa;
      backends.push_back({isa + "/" + std::to_string(threads), isa, prepared.prepare != nullptr,
                          std::make_unique<CpuBackend>(*kernels, threads)});
    }
  }
  return backends;
}

inline const std::vector<NamedBackend>& other_backends() {
  static const std::vector<NamedBackend> backends = make_other_backends();
  return backends;
}

// f(backend, name) for ref and every other back end.
template <typename F>
void for_each_backend(F f) {
  f(ref(), std::string("ref"));
  for (const NamedBackend& other : other_backends()) f(*other.backend, other.name);
}

}  // namespace octavo::test
