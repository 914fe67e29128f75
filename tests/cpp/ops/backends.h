// The back ends present: ref, which is tested against formulas, and all others, which are tested
// against ref. A CPU is one back end for each instruction set that it can run, with one thread and
// with more threads than most machines' share of a small op.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/registry.h"
#include "cpu/isa.h"

namespace octavo::test {

struct NamedBackend {
  std::string name;
  std::string isa;  // back ends of the same one have the same bits, whatever their threads
  std::unique_ptr<Backend> backend;
};

inline Backend& ref() {
  static const std::unique_ptr<Backend> backend = make_ref_backend();
  return *backend;
}

inline std::vector<NamedBackend> make_other_backends() {
  std::vector<NamedBackend> backends;
  for (const auto& isa : available_isas()) {
    for (int32_t threads : {1, 3}) {
      const std::string name(isa);
      setenv("OCTAVO_ISA", name.c_str(), 1);
      backends.push_back({"cpu/" + name + "/" + std::to_string(threads), "cpu/" + name,
                          make_cpu_backend(threads)});
    }
  }
  unsetenv("OCTAVO_ISA");
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
