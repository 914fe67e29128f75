// The one name that liboctavo_cuda.so exports: how the core (backend/cuda_library.cc) gets a back
// end of it.
#include <cstring>

#include "base/check.h"
#include "cuda_backend.h"
#include "octavo/version.h"

// Throws what CudaBackend's constructor throws, and NotSupported for a core of another version.
extern "C" __attribute__((visibility("default"))) octavo::Backend* octavo_make_cuda_backend(
    int32_t device, const char* version) {
  if (std::strcmp(version, OCTAVO_VERSION) != 0) {
    throw octavo::NotSupported(octavo::str_cat("device: 'cuda': liboctavo_cuda.so is of version ",
                                               OCTAVO_VERSION, "; expected ", version));
  }
  return new octavo::cuda::CudaBackend(device);
}
