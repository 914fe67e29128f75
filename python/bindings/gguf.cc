// The metadata of GGUF files, for the tokenizer that they carry.
#include "octavo/gguf.h"

#include <nanobind/stl/string.h>

#include "bindings.h"

namespace octavo {
namespace {

// GGUF's strings are UTF-8 by definition; a token that is not decodes with surrogates for its
// bytes.
nb::object to_python(const std::string& text) {
  return nb::steal(
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape"));
}
nb::object to_python(bool value) { return nb::cast(value); }
nb::object to_python(int64_t value) { return nb::cast(value); }
nb::object to_python(double value) { return nb::cast(value); }

template <typename T>
nb::object to_python(const std::vector<T>& values) {
  nb::list list;
  for (const auto& value : values) list.append(to_python(static_cast<const T&>(value)));
  return list;
}

nb::dict read_metadata(const std::string& path) {
  nb::dict result;
  for (const auto& [key, value] : read_gguf_metadata(path)) {
    result[to_python(key)] = std::visit([](const auto& v) { return to_python(v); }, value);
  }
  return result;
}

}  // namespace

void bind_gguf(nb::module_& m) {
  m.def("read_gguf_metadata", &read_metadata, nb::arg("path"),
        "The metadata of a GGUF file: bool, int, float, str, or a list of one of them by key.");
}

}  // namespace octavo
