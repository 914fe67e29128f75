#include "grammar/xgrammar_log.h"

#include <stdexcept>

namespace octavo {
namespace {

constinit thread_local XgrammarWarnings* t_warnings = nullptr;

}  // namespace

XgrammarWarnings::XgrammarWarnings() : outer_(t_warnings) { t_warnings = this; }

XgrammarWarnings::~XgrammarWarnings() { t_warnings = outer_; }

void XgrammarWarnings::add(const std::string& message) {
  if (first_.empty()) first_ = message;
}

}  // namespace octavo

// The library's hooks (XGRAMMAR_LOG_CUSTOMIZE in its support/logging.h).
namespace xgrammar {

[[noreturn]] void LogFatalImpl(const std::string& file, int line, const std::string& message);
void LogMessageImpl(const std::string& file, int line, int level, const std::string& message);

void LogFatalImpl(const std::string&, int, const std::string& message) {
  throw std::runtime_error(message);
}

void LogMessageImpl(const std::string&, int, int level, const std::string& message) {
  constexpr int kWarning = 2;
  if (level >= kWarning && octavo::t_warnings != nullptr) octavo::t_warnings->add(message);
}

}  // namespace xgrammar
