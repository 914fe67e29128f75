// The instruction sets that the kernels are compiled for, and the choice among them at run time.
// Stateless; `cpu_isas()` of octavo/engine.h is the public form.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cpu/kernel_table.h"

namespace octavo {

// The kernels that this processor and this operating system can run, best first; "generic" is the
// last.
std::vector<const KernelTable*> available_kernels();
// Their names.
std::vector<std::string> available_isas();

// The kernels of the best one, or of the one that OCTAVO_ISA in the environment names. Throws
// InvalidArgument where that is not available.
const KernelTable& active_kernels();

// The kernels of an available instruction set. Throws InvalidArgument.
const KernelTable& kernels_for_isa(std::string_view isa);

}  // namespace octavo
