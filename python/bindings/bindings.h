// The parts of the extension module, one a file.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <vector>

namespace octavo {

namespace nb = nanobind;

struct EngineStats;
struct SamplingParams;

// A sequence of ints, or an integer array of one dimension (copied through its tolist).
std::vector<int32_t> to_token_ids(nb::handle source);
nb::dict to_dict(const EngineStats& stats);
// A copy whose Python callables have references of their own, with the GIL held. What the engine
// gets is such a copy: the references of Python's object are then the object's alone, as Python's
// cyclic collector, which is told of them, takes them to be.
SamplingParams own_processors(const SamplingParams& params);

void bind_errors(nb::module_& m);
void bind_params(nb::module_& m);
void bind_types(nb::module_& m);
void bind_engine(nb::module_& m);
void bind_engine_thread(nb::module_& m);
void bind_gguf(nb::module_& m);

}  // namespace octavo
