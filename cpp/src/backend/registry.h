// Makes back ends by the name of their device. The factories are declared here and defined by each
// back end, so that nothing above names one.
#pragma once

#include <memory>
#include <string_view>

#include "backend/backend.h"

namespace octavo {

std::unique_ptr<Backend> make_ref_backend();                     // backend/ref.cc
std::unique_ptr<Backend> make_cpu_backend(int32_t num_threads);  // cpu/
// backend/cuda_library.cc, which opens liboctavo_cuda.so. Throws NotSupported that says what was
// found where the library, the driver or the GPU is missing or too old.
std::unique_ptr<Backend> make_cuda_backend(int32_t device);
// Of the first GPU; null where there is none that can be used.
std::unique_ptr<Backend> make_cuda_backend_if_present();

// `device` is auto, cpu, cuda, cuda:N or ref; `num_threads`, of the CPU's, 0 takes the machine's
// default. auto: cuda where there is a GPU, else cpu. Throws InvalidArgument for an unknown name.
std::unique_ptr<Backend> make_backend(std::string_view device, int32_t num_threads);

}  // namespace octavo
