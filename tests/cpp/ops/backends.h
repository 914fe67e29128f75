// The back ends present: ref, which is tested against formulas, and all others, which are tested
// against ref. A CPU is one back end for each instruction set that it can run, and for the model of
// AMX, with one thread and with more threads than most machines' share of a small op. With
// OCTAVO_TEST_DEVICE=cuda in the environment the only other one is the first GPU.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
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

inline bool on_cuda() {
  const char* device = std::getenv("OCTAVO_TEST_DEVICE");
  return device != nullptr && std::string_view(device) == "cuda";
}

// What a case does not apply to on CUDA is said, and is not run.
inline bool skipped_on_cuda(const char* reason) {
  if (on_cuda()) MESSAGE("skipped on CUDA: ", std::string(reason));
  return on_cuda();
}
inline constexpr const char* kBatchInvariance =
    "a row's bits depend on its batch: products and splits are chosen by its size";
inline constexpr const char* kKeptIntegers = "integer weights are decoded when they are packed";

inline std::vector<NamedBackend> make_other_backends() {
  std::vector<NamedBackend> backends;
  if (on_cuda()) {
    backends.push_back({"cuda", "cuda/float32", false, make_backend("cuda", 0)});
    return backends;
  }
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

// The activations that words are tested with, each for weights of the same dtype. On a CPU they are
// always float32, on CUDA as the weights.
inline std::vector<DType> activation_dtypes() {
  if (!on_cuda()) return {DType::kFloat32};
  return {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
}
// What the inputs of a case with weights of `weights` are rounded to, on ref too, so that all back
// ends are given the same numbers.
inline DType input_dtype(DType weights) { return on_cuda() ? weights : DType::kFloat32; }

// f(backend, name) for ref and every other back end.
template <typename F>
void for_each_backend(F f) {
  f(ref(), std::string("ref"));
  for (const NamedBackend& other : other_backends()) f(*other.backend, other.name);
}

}  // namespace octavo::test
