// A set of Unicode code points, as sorted ranges. Surrogates are never in it: UTF-8 has none. A
// value.
#pragma once

#include <initializer_list>
#include <utility>
#include <vector>

namespace octavo {

class CodeSet {
 public:
  using Range = std::pair<char32_t, char32_t>;  // both ends are in it

  CodeSet() = default;
  CodeSet(std::initializer_list<Range> ranges);
  static CodeSet all();
  // What stands in a JSON string without an escape.
  static CodeSet json_plain();

  bool empty() const { return ranges_.empty(); }
  bool contains(char32_t code) const;
  const std::vector<Range>& ranges() const { return ranges_; }

  void add(char32_t first, char32_t last);
  void add(const CodeSet& other);
  CodeSet complement() const;
  CodeSet intersection(const CodeSet& other) const;

 private:
  std::vector<Range> ranges_;  // sorted, with gaps between them
};

}  // namespace octavo
