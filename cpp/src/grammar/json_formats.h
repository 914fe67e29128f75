// The values of JSON schema's keyword "format" that are enforced. Stateless.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace octavo {

// A regular expression of the format's strings, in part stricter than its definition; null:
// unknown.
const std::string* format_regex(std::string_view format);

struct IntegerRange {
  int64_t min, max;
};
// The formats of OpenAPI for integers; nothing: unknown.
std::optional<IntegerRange> format_range(std::string_view format);

}  // namespace octavo
