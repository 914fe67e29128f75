// Octavo's C++ exceptions as Python's. Each is also the built-in kind that callers expect, so that
// `except ValueError` around a bad parameter works.
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

void translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const InvalidArgument& error) {
    PyErr_SetString(types.validation, error.what());
  } catch (const LoadError& error) {
    PyErr_SetString(types.load, error.what());
  } catch (const OutOfMemory& error) {
    PyErr_SetString(types.memory, error.what());
  } catch (const NotSupported& error) {
    PyErr_SetString(types.unsupported, error.what());
  } catch (const InternalError& error) {
    PyErr_SetString(types.internal, error.what());
  } catch (const Error& error) {
    PyErr_SetString(types.base, error.what());
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
