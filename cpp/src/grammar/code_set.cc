#include "grammar/code_set.h"

#include <algorithm>

namespace octavo {
namespace {

constexpr char32_t kLast = 0x10ffff;
constexpr char32_t kFirstSurrogate = 0xd800, kLastSurrogate = 0xdfff;

}  // namespace

CodeSet::CodeSet(std::initializer_list<Range> ranges) {
  for (const Range& range : ranges) add(range.first, range.second);
}

CodeSet CodeSet::all() { return {{0, kLast}}; }

CodeSet CodeSet::json_plain() { return {{0x20, 0x21}, {0x23, 0x5b}, {0x5d, kLast}}; }

bool CodeSet::contains(char32_t code) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& range) {
    return range.first <= code && code <= range.second;
  });
}

void CodeSet::add(char32_t first, char32_t last) {
  if (first < kFirstSurrogate && last > kLastSurrogate) {
    add(first, kFirstSurrogate - 1);
    return add(kLastSurrogate + 1, last);
  }
  if (first >= kFirstSurrogate && first <= kLastSurrogate) first = kLastSurrogate + 1;
  if (last >= kFirstSurrogate && last <= kLastSurrogate) last = kFirstSurrogate - 1;
  if (first > last) return;
  std::vector<Range> merged;
  for (const Range& range : ranges_) {
    if (range.second + 1 < first || last + 1 < range.first) {
      merged.push_back(range);
    } else {
      first = std::min(first, range.first);
      last = std::max(last, range.second);
    }
  }
  merged.emplace_back(first, last);
  std::sort(merged.begin(), merged.end());
  ranges_ = std::move(merged);
}

void CodeSet::add(const CodeSet& other) {
  for (const Range& range : other.ranges_) add(range.first, range.second);
}

CodeSet CodeSet::complement() const {
  CodeSet result;
  char32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.first > next) result.add(next, range.first - 1);
    next = range.second + 1;
  }
  if (next <= kLast) result.add(next, kLast);
  return result;
}

CodeSet CodeSet::intersection(const CodeSet& other) const {
  CodeSet result;
  for (const Range& a : ranges_) {
    for (const Range& b : other.ranges_) {
      const char32_t first = std::max(a.first, b.first), last = std::min(a.second, b.second);
      if (first <= last) result.add(first, last);
    }
  }
  return result;
}

}  // namespace octavo
