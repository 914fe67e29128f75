// Throwing checks. OCTAVO_CHECK states an invariant of our own code; user input is checked with an
// error of its own that says what was expected.
#pragma once

#include <sstream>
#include <string>

#include "octavo/error.h"

namespace octavo {

// Joins its arguments as text: for error messages (g++ 12 has no <format>).
template <typename... Args>
std::string str_cat(const Args&... args) {
  std::ostringstream out;
  static_cast<void>((out << ... << args));
  return out.str();
}

[[noreturn]] void check_failed(const char* condition, const char* file, int line,
                               const std::string& message);

}  // namespace octavo

#define OCTAVO_CHECK(condition, ...)                                                          \
  do {                                                                                        \
    if (!(condition)) [[unlikely]]                                                            \
      ::octavo::check_failed(#condition, __FILE__, __LINE__, ::octavo::str_cat(__VA_ARGS__)); \
  } while (0)
