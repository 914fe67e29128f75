#include "backend/registry.h"

#include "base/check.h"

namespace octavo {

std::unique_ptr<Backend> make_backend(std::string_view device, int32_t num_threads) {
  if (num_threads < 0) {
    throw InvalidArgument(
        str_cat("num_threads: ", num_threads, " is negative; expected 0 for the default, or more"));
  }
  if (device == "auto" || device == "cpu") return make_cpu_backend(num_threads);
  if (device == "ref") return make_ref_backend();
  if (device == "cuda" || device.starts_with("cuda:")) {
    throw NotSupported(
        str_cat("device: '", device, "' is not in this build; expected auto, cpu or ref"));
  }
  throw InvalidArgument(str_cat("device: '", device, "' is unknown; expected auto, cpu or ref"));
}

}  // namespace octavo
