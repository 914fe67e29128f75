#include "backend/registry.h"

#include <charconv>

#include "base/check.h"

namespace octavo {
namespace {

constexpr std::string_view kExpected = "expected auto, cpu, cuda, cuda:N or ref";

// N of "cuda:N", and 0 of "cuda".
int32_t cuda_device(std::string_view device) {
  if (device == "cuda") return 0;
  const std::string_view number = device.substr(5);
  int32_t index = -1;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), index);
  if (error != std::errc() || end != number.data() + number.size() || index < 0) {
    throw InvalidArgument(str_cat("device: '", device, "'; ", kExpected));
  }
  return index;
}

}  // namespace

std::unique_ptr<Backend> make_backend(std::string_view device, int32_t num_threads) {
  if (num_threads < 0) {
    throw InvalidArgument(
        str_cat("num_threads: ", num_threads, " is negative; expected 0 for the default, or more"));
  }
  if (device == "auto") {
    std::unique_ptr<Backend> cuda = make_cuda_backend_if_present();
    return cuda ? std::move(cuda) : make_cpu_backend(num_threads);
  }
  if (device == "cpu") return make_cpu_backend(num_threads);
  if (device == "ref") return make_ref_backend();
  if (device == "cuda" || device.starts_with("cuda:")) {
    return make_cuda_backend(cuda_device(device));
  }
  throw InvalidArgument(str_cat("device: '", device, "' is unknown; ", kExpected));
}

}  // namespace octavo
