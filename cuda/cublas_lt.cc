#include "cublas_lt.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

#include "base/check.h"

namespace octavo::cuda {
namespace {

constexpr const char* kLibrary = "libcublasLt.so.13";

// The folder that this library was loaded from; empty where the loader does not say.
std::string own_directory() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_directory), &info) == 0 ||
      info.dli_fname == nullptr) {
    return {};
  }
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string(".") : path.substr(0, slash);
}

// Where the library may lie, in order; an empty name is the loader's own search.
std::vector<std::string> directories() {
  std::vector<std::string> found;
  const char* chosen = std::getenv("OCTAVO_CUBLAS_DIR");
  if (chosen != nullptr && *chosen != '\0') found.emplace_back(chosen);
  const std::string own = own_directory();
  if (!own.empty()) {
    // The plug-in lies in its package, which lies in site-packages, or a folder or two deeper.
    for (const char* up : {"/..", "/../..", "/../../.."}) {
      found.push_back(own + up + "/nvidia/cu13/lib");
    }
  }
  found.emplace_back();
  return found;
}

void* open_library(std::string& path) {
  std::string looked;
  for (const std::string& directory : directories()) {
    path = directory.empty() ? kLibrary : directory + "/" + kLibrary;
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) return library;
    const char* reason = dlerror();
    looked += looked.empty() ? "" : ", ";
    looked += directory.empty() ? std::string("the loader's path") : directory;
    // It is there, but cannot be loaded.
    if (access(path.c_str(), F_OK) == 0 && reason != nullptr) looked += str_cat(" (", reason, ")");
  }
  throw NotSupported(str_cat("cuda: ", kLibrary, " was not found in ", looked,
                             "; expected the package nvidia-cublas (13) or CUDA 13's libraries"));
}

template <typename Function>
void find(void* library, const std::string& path, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) {
    throw NotSupported(str_cat("cuda: ", path, " has no function ", name,
                               "; expected the package nvidia-cublas (13) or CUDA 13's libraries"));
  }
}

CublasLt load() {
  CublasLt lt{};
  void* library = open_library(lt.path);
  find(library, lt.path, "cublasLtCreate", lt.create);
  find(library, lt.path, "cublasLtDestroy", lt.destroy);
  find(library, lt.path, "cublasLtGetStatusString", lt.status_string);
  find(library, lt.path, "cublasLtMatmul", lt.matmul);
  find(library, lt.path, "cublasLtMatmulAlgoGetHeuristic", lt.heuristic);
  find(library, lt.path, "cublasLtMatmulDescCreate", lt.desc_create);
  find(library, lt.path, "cublasLtMatmulDescDestroy", lt.desc_destroy);
  find(library, lt.path, "cublasLtMatmulDescSetAttribute", lt.desc_set);
  find(library, lt.path, "cublasLtMatrixLayoutCreate", lt.layout_create);
  find(library, lt.path, "cublasLtMatrixLayoutDestroy", lt.layout_destroy);
  find(library, lt.path, "cublasLtMatmulPreferenceCreate", lt.preference_create);
  find(library, lt.path, "cublasLtMatmulPreferenceDestroy", lt.preference_destroy);
  find(library, lt.path, "cublasLtMatmulPreferenceSetAttribute", lt.preference_set);
  return lt;
}

}  // namespace

void CublasLt::check(cublasStatus_t status, const char* what) const {
  if (status == CUBLAS_STATUS_SUCCESS) [[likely]]
    return;
  const std::string text = str_cat("cuda: cuBLASLt: ", what, ": ", status_string(status));
  if (status == CUBLAS_STATUS_ALLOC_FAILED) throw OutOfMemory(text + "; expected free memory");
  throw InternalError(text);
}

const CublasLt& cublas_lt() {
  static const CublasLt lt = load();
  return lt;
}

}  // namespace octavo::cuda
