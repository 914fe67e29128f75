// Text that came out of a file, made fit for an error message: printable ASCII of bounded length,
// whatever the bytes are. Stateless.
#pragma once

#include <string>
#include <string_view>

namespace octavo {

inline std::string printable(std::string_view text, size_t max_length = 160) {
  constexpr std::string_view kHexDigits = "0123456789abcdef";
  std::string result;
  for (const char c : text.substr(0, max_length)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      result += c;
    } else {
      result += {'\\', 'x', kHexDigits[byte >> 4], kHexDigits[byte & 15]};
    }
  }
  if (text.size() > max_length) result += "...";
  return result;
}

}  // namespace octavo
