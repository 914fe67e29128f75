// Octavo's C++ exceptions as Python's. Each is also the built-in kind that callers expect, so that
// `except ValueError` around a bad parameter works.
#include <cstring>

#include "bindings.h"

#include "octavo/error.h"

namespace octavo {
namespace {

struct ErrorTypes {
  PyObject* base;
  PyObject* validation;
  PyObject* load;
  PyObject* memory;
  PyObject* unsupported;
  PyObject* internal;
};

// Lives as long as the interpreter: exceptions may be raised until its end.
ErrorTypes types;

PyObject* make_type(nb::module_& m, const char* name, PyObject* builtin, const char* doc) {
  const std::string full = std::string("octavo.") + name;
  nb::object bases = builtin == nullptr
                         ? nb::object()
                         : nb::make_tuple(nb::handle(types.base), nb::handle(builtin));
  PyObject* type = PyErr_NewExceptionWithDoc(
      full.c_str(), doc, builtin == nullptr ? PyExc_Exception : bases.ptr(), nullptr);
  if (type == nullptr) throw nb::python_error();
  m.attr(name) = nb::handle(type);
  return type;
}

// A message may quote a file's bytes, which need not be UTF-8.
void set_error(PyObject* type, const std::exception& error) {
  const char* text = error.what();
  const nb::object message =
      nb::steal(PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(std::strlen(text)), "replace"));
  if (message.is_valid()) PyErr_SetObject(type, message.ptr());
}

void translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const InvalidArgument& error) {
    set_error(types.validation, error);
  } catch (const LoadError& error) {
    set_error(types.load, error);
  } catch (const OutOfMemory& error) {
    set_error(types.memory, error);
  } catch (const NotSupported& error) {
    set_error(types.unsupported, error);
  } catch (const InternalError& error) {
    set_error(types.internal, error);
  } catch (const Error& error) {
    set_error(types.base, error);
  }
}

}  // namespace

void bind_errors(nb::module_& m) {
  types.base = make_type(m, "OctavoError", nullptr, "The base of Octavo's errors.");
  types.validation = make_type(m, "ValidationError", PyExc_ValueError,
                               "A request, parameter or option is outside its range.");
  types.load = make_type(m, "ModelLoadError", PyExc_RuntimeError,
                         "A model's files are missing, malformed, or do not fit the architecture.");
  types.memory = make_type(m, "OutOfMemoryError", PyExc_MemoryError,
                           "The model or the KV cache does not fit in the memory that was given.");
  types.unsupported = make_type(m, "NotSupportedError", PyExc_NotImplementedError,
                                "The architecture, device or feature is not in this build.");
  types.internal =
      make_type(m, "InternalError", PyExc_RuntimeError, "An invariant of the engine is broken.");
  nb::register_exception_translator(translate);
}

}  // namespace octavo
