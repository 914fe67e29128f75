// Makes back ends by the name of their device. The factories are declared here and defined by each
// back end, so that nothing above names one.
#pragma once

#include <memory>
#include <string_view>

#include "backend/backend.h"

namespace octavo {

std::unique_ptr<Backend> make_ref_backend();                     // backend/ref.cc
std::unique_ptr<Backend> make_cpu_backend(int32_t num_threads);  // cpu/

// `device` is auto, cpu or ref; `num_threads` 0 takes the machine's default. Throws InvalidArgument
// for an unknown name.
std::unique_ptr<Backend> make_backend(std::string_view device, int32_t num_threads);

}  // namespace octavo
