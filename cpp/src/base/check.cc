#include "base/check.h"

#include <cstring>

namespace octavo {

void check_failed(const char* condition, const char* file, int line, const std::string& message) {
  const char* base = std::strrchr(file, '/');
  throw InternalError(str_cat("internal error: ", message, message.empty() ? "" : " ", "(",
                              condition, " is false at ", base ? base + 1 : file, ":", line, ")"));
}

}  // namespace octavo
