// Opens the CUDA back end, a library of its own, when a CUDA device is asked for: a machine without
// a GPU needs nothing of CUDA, and an import touches no driver.
#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "base/check.h"
#include "octavo/version.h"

namespace octavo {
namespace {

constexpr const char* kLibrary = "liboctavo_cuda.so";

// The library beside the one that holds this function, or what OCTAVO_CUDA_LIBRARY names.
std::string library_path() {
  if (const char* given = std::getenv("OCTAVO_CUDA_LIBRARY")) return given;
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&library_path), &info) == 0) return kLibrary;
  return (std::filesystem::path(info.dli_fname).parent_path() / kLibrary).string();
}

// Opened once and never closed: CUDA's runtime does not survive that.
void* open_library(std::string& error) {
  const std::string path = library_path();
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* text = dlerror();
    error = std::filesystem::exists(path) ? std::string(text == nullptr ? path : text)
                                          : path + " is missing";
  }
  return library;
}

using MakeBackend = Backend* (*)(int32_t device, const char* version);

MakeBackend find_factory(std::string& error) {
  void* library = open_library(error);
  if (library == nullptr) return nullptr;
  void* found = dlsym(library, "octavo_make_cuda_backend");
  if (found == nullptr) error = library_path() + " has no octavo_make_cuda_backend";
  return reinterpret_cast<MakeBackend>(found);
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(int32_t device) {
  std::string error;
  const MakeBackend make = find_factory(error);
  if (make == nullptr) {
    throw NotSupported(str_cat("device: 'cuda' needs Octavo's CUDA library: ", error,
                               "; expected a build with OCTAVO_BUILD_CUDA, or device cpu"));
  }
  return std::unique_ptr<Backend>(make(device, OCTAVO_VERSION));
}

std::unique_ptr<Backend> make_cuda_backend_if_present() {
  std::string error;
  const MakeBackend make = find_factory(error);
  if (make == nullptr) return nullptr;
  try {
    return std::unique_ptr<Backend>(make(0, OCTAVO_VERSION));
  } catch (const NotSupported&) {
    return nullptr;
  }
}

}  // namespace octavo
