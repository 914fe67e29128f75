// The exceptions of Octavo. Every function of the public headers reports failure by one of these;
// nothing exits or aborts the process. A message begins with the operation or the parameter that
// failed and ends with what was expected.
#pragma once

#include <stdexcept>
#include <string>

#include "octavo/export.h"

namespace octavo {

class OCTAVO_EXPORT Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A request, parameter or option is outside its range; the engine is unchanged and goes on.
class OCTAVO_EXPORT InvalidArgument : public Error {
 public:
  using Error::Error;
};

// A model's files are missing, malformed, or do not fit the architecture.
class OCTAVO_EXPORT LoadError : public Error {
 public:
  using Error::Error;
};

// The model, the KV cache or the workspace does not fit in the memory that was given.
class OCTAVO_EXPORT OutOfMemory : public Error {
 public:
  using Error::Error;
};

// The architecture, device or feature is not in this build.
class OCTAVO_EXPORT NotSupported : public Error {
 public:
  using Error::Error;
};

// An invariant of the engine is broken: a bug. The engine must be destroyed.
class OCTAVO_EXPORT InternalError : public Error {
 public:
  using Error::Error;
};

}  // namespace octavo
