// What the grammar library reports: errors are thrown, and the first warning on a thread is kept,
// because it warns where it ignores a part of what it was given. Nothing is printed. For the other
// files of this directory; any thread.
#pragma once

#include <string>

namespace octavo {

// Collects this thread's warnings while it lives. Scopes nest: the innermost collects.
class XgrammarWarnings {
 public:
  XgrammarWarnings();
  ~XgrammarWarnings();
  XgrammarWarnings(const XgrammarWarnings&) = delete;
  XgrammarWarnings& operator=(const XgrammarWarnings&) = delete;

  const std::string& first() const { return first_; }  // empty: there was none
  void add(const std::string& message);

 private:
  XgrammarWarnings* outer_;
  std::string first_;
};

}  // namespace octavo
