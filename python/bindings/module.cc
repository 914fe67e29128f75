// The extension module octavo._core: the public headers of the C++ library, nothing more.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "octavo/engine.h"
#include "octavo/version.h"

NB_MODULE(_core, m) {
  m.doc() = "Octavo's C++ runtime: tokens in, tokens out.";
  m.attr("__version__") = OCTAVO_VERSION;
  octavo::bind_errors(m);
  octavo::bind_params(m);
  octavo::bind_types(m);
  octavo::bind_engine(m);
  octavo::bind_engine_thread(m);
  octavo::bind_gguf(m);
  m.def("cpu_isas", &octavo::cpu_isas,
        "The instruction sets that the CPU back end can use on this machine, best first.");
  m.def("default_num_threads", &octavo::default_num_threads,
        "The number of threads that an engine takes by default on this machine.");
}
