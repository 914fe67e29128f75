// The parts of the extension module, one a file.
#pragma once

#include <nanobind/nanobind.h>

namespace octavo {

namespace nb = nanobind;

void bind_errors(nb::module_& m);
void bind_types(nb::module_& m);
void bind_engine(nb::module_& m);
void bind_gguf(nb::module_& m);

}  // namespace octavo
