#include "base/json.h"

#include <set>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/printable.h"

namespace octavo {
namespace {

constexpr int kMaxDepth = 64;

// Watches the parser's events; throws LoadError at the first that is not wanted.
class Watcher {
 public:
  Watcher(std::string_view what, DuplicateKeys duplicates) : what_(what), duplicates_(duplicates) {}

  bool operator()(int depth, Json::parse_event_t event, const Json& value) {
    switch (event) {
      case Json::parse_event_t::object_start:
        check_depth(depth);
        if (duplicates_ == DuplicateKeys::kRefuse) keys_.emplace_back();
        break;
      case Json::parse_event_t::array_start: check_depth(depth); break;
      case Json::parse_event_t::object_end:
        if (duplicates_ == DuplicateKeys::kRefuse) keys_.pop_back();
        break;
      case Json::parse_event_t::key:
        if (duplicates_ == DuplicateKeys::kRefuse) check_key(value.get_ref<const std::string&>());
        break;
      default: break;
    }
    return true;
  }

 private:
  void check_depth(int depth) const {
    if (depth < kMaxDepth) return;
    throw LoadError(
        str_cat(what_, ": JSON is nested too deeply; expected at most ", kMaxDepth, " levels"));
  }

  void check_key(const std::string& key) {
    if (keys_.back().insert(key).second) return;
    throw LoadError(str_cat(what_, ": '", printable(key), "' occurs twice; expected one"));
  }

  std::string_view what_;
  DuplicateKeys duplicates_;
  std::vector<std::set<std::string>> keys_;  // of each open object
};

}  // namespace

Json parse_json(std::string_view text, std::string_view what, DuplicateKeys duplicates) {
  Watcher watcher(what, duplicates);
  try {
    return Json::parse(text.begin(), text.end(),
                       [&watcher](int depth, Json::parse_event_t event, Json& value) {
                         return watcher(depth, event, value);
                       });
  } catch (const Json::exception& error) {
    // The parser quotes what it read last, which need not be text.
    throw LoadError(str_cat(what, ": ", printable(error.what()), "; expected valid JSON"));
  }
}

std::string dump_json(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace octavo
