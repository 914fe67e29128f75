#include "grammar/text_check.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "octavo/error.h"

namespace octavo {
namespace {

// The number of bytes that a first byte begins, 0: none.
size_t length_of(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return 2;
  if (first >= 0xe0 && first <= 0xef) return 3;
  if (first >= 0xf0 && first <= 0xf4) return 4;
  return 0;
}

// 0: not valid UTF-8 here.
size_t valid_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const size_t length = length_of(byte(0));
  if (length == 0 || length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  if (length == 3 && byte(0) == 0xe0 && byte(1) < 0xa0) return 0;  // overlong
  if (length == 3 && byte(0) == 0xed && byte(1) > 0x9f) return 0;  // a surrogate
  if (length == 4 && byte(0) == 0xf0 && byte(1) < 0x90) return 0;  // overlong
  if (length == 4 && byte(0) == 0xf4 && byte(1) > 0x8f) return 0;  // above U+10FFFF
  return length;
}

[[noreturn]] void refuse(const std::string& message) {
  throw InvalidArgument("structured_outputs: " + message);
}

bool is_hex_digit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

// Numbers in braces, outside of texts, classes and comments. Above 128 the library's masks allow
// tokens that do not fit.
void check_repetitions(std::string_view text, std::string_view what) {
  constexpr int64_t kMost = 128;
  char inside = 0;  // of what the text is: ", [, # or nothing
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (inside != 0) {
      const char end = inside == '[' ? ']' : inside == '#' ? '\n' : '"';
      if (c == '\\' && inside != '#') {
        ++i;
      } else if (c == end) {
        inside = 0;
      }
      continue;
    }
    if (c == '"' || c == '[' || c == '#') inside = c;
    if (c != '{') continue;
    int64_t number = 0;
    for (++i; i < text.size() && text[i] != '}'; ++i) {
      number = text[i] >= '0' && text[i] <= '9' ? number * 10 + (text[i] - '0') : 0;
      if (number > kMost) {
        refuse(str_cat(what, ": byte ", i, ": a repetition above ", kMost,
                       " is not supported, expected several that follow one another"));
      }
    }
  }
}

}  // namespace

void check_text(std::string_view text, std::string_view what) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = valid_length(text.substr(i));
    if (length == 0) {
      throw InvalidArgument(str_cat("structured_outputs: ", what, ": byte ", i,
                                    " is not UTF-8, expected a text in UTF-8"));
    }
    if (text[i] == '\0') {
      throw InvalidArgument(str_cat("structured_outputs: ", what, ": byte ", i,
                                    " is NUL, expected a text without it"));
    }
    i += length;
  }
}

// GBNF's \x has two digits; the library's takes as many as there are.
void check_grammar_text(std::string_view text, std::string_view what) {
  check_text(text, what);
  check_repetitions(text, what);
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    if (text[i] != '\\') continue;
    if (text[++i] != 'x') continue;
    size_t digits = 0;
    while (i + 1 + digits < text.size() && is_hex_digit(text[i + 1 + digits])) ++digits;
    if (digits <= 2) continue;
    refuse(str_cat(what, ": byte ", i - 1,
                   ": a hexadecimal digit follows \\x and two digits, which "
                   "reads in two ways; write \\u and four digits"));
  }
}

char32_t take_code_point(std::string_view& text) {
  const auto first = static_cast<unsigned char>(text[0]);
  const size_t length = length_of(first);
  constexpr unsigned char kFirstBits[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
  char32_t code = first & kFirstBits[length];
  for (size_t i = 1; i < length; ++i) {
    code = (code << 6) | (static_cast<unsigned char>(text[i]) & 0x3f);
  }
  text.remove_prefix(length);
  return code;
}

}  // namespace octavo
