#include "grammar/regex_tree.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/printable.h"
#include "grammar/regex_classes.h"
#include "grammar/text_check.h"
#include "octavo/error.h"

namespace octavo {
namespace {

using Kind = RegexTree::Kind;

constexpr int32_t kMaxNesting = 64;
constexpr int64_t kMaxCount = 100'000;  // of a repetition
constexpr char32_t kNothing = 0xffffffff;

const CodeSet kNameLetters = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CodeSet kNewlines = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

bool is_ascii_letter_or_digit(char32_t c) { return kNameLetters.contains(c) && c != '_'; }

class Parser {
 public:
  Parser(std::string_view regex, std::string_view what) : what_(what) {
    check_text(regex, what);
    while (!regex.empty()) text_.push_back(take_code_point(regex));
  }

  RegexTree parse() {
    RegexTree tree = parse_choice(0);
    if (pos_ < text_.size()) refuse("')' without '('");
    check_anchors(tree, true, true);
    return tree;
  }

 private:
  [[noreturn]] void refuse(const std::string& message) const {
    throw InvalidArgument(
        str_cat("structured_outputs: ", what_, ": at character ", pos_, ": ", message));
  }
  char32_t peek(size_t ahead = 0) const {
    return pos_ + ahead < text_.size() ? text_[pos_ + ahead] : kNothing;
  }
  bool take(char32_t c) {
    if (peek() != c) return false;
    ++pos_;
    return true;
  }
  std::string name(char32_t c) const {
    return c == kNothing ? "the end"
           : c < 0x80    ? printable(std::string(1, static_cast<char>(c)))
                         : "a letter";
  }

  RegexTree parse_choice(int32_t depth);
  RegexTree parse_sequence(int32_t depth);
  std::optional<RegexTree> parse_atom(int32_t depth);
  RegexTree parse_group(int32_t depth);
  void skip_group_name();
  RegexTree parse_quantified(RegexTree atom);
  bool parse_count(int64_t& min, int64_t& max);
  int64_t parse_number();
  CodeSet parse_escape(bool inverted);
  std::optional<CodeSet> parse_set_escape(bool inverted);
  char32_t parse_code_escape();
  char32_t parse_hex(int32_t digits);
  char32_t parse_unicode_escape();
  CodeSet parse_class();
  std::optional<char32_t> parse_class_item(CodeSet& set, bool negated);
  void check_anchors(RegexTree& tree, bool begins, bool ends);

  std::string_view what_;
  std::vector<char32_t> text_;
  size_t pos_ = 0;
};

RegexTree Parser::parse_choice(int32_t depth) {
  if (depth > kMaxNesting) refuse(str_cat("groups are nested more than ", kMaxNesting, " deep"));
  RegexTree choice{Kind::kChoice};
  do {
    choice.children.push_back(parse_sequence(depth));
  } while (take('|'));
  if (choice.children.size() > 1) return choice;
  RegexTree only = std::move(choice.children.front());
  return only;
}

RegexTree Parser::parse_sequence(int32_t depth) {
  RegexTree sequence{Kind::kSequence};
  while (auto atom = parse_atom(depth)) {
    sequence.children.push_back(parse_quantified(std::move(*atom)));
  }
  return sequence;
}

std::optional<RegexTree> Parser::parse_atom(int32_t depth) {
  const char32_t c = peek();
  if (c == kNothing || c == '|' || c == ')') return std::nullopt;
  if (c == '*' || c == '+' || c == '?')
    refuse(str_cat("'", name(c), "' follows nothing to repeat"));
  if (c == '{') refuse("'{' follows nothing to repeat; write \\{ for the character");
  ++pos_;
  if (c == '^') return RegexTree{Kind::kBegin};
  if (c == '$') return RegexTree{Kind::kEnd};
  if (c == '(') return parse_group(depth);
  if (c == '[') return RegexTree{Kind::kSet, parse_class()};
  if (c == '.') return RegexTree{Kind::kSet, kNewlines.complement()};
  if (c == '\\') return RegexTree{Kind::kSet, parse_escape(false)};
  return RegexTree{Kind::kSet, {{c, c}}};
}

RegexTree Parser::parse_group(int32_t depth) {
  if (take('?')) {
    if (peek() == '=' || peek() == '!') refuse("lookahead (?= or (?! is not supported");
    if (peek() == '<' && (peek(1) == '=' || peek(1) == '!')) {
      refuse("lookbehind (?<= or (?<! is not supported");
    }
    if (!take(':')) skip_group_name();
  }
  RegexTree inside = parse_choice(depth + 1);
  if (!take(')')) refuse("')' is missing");
  return inside;
}

void Parser::skip_group_name() {
  if (peek() == 'P' && peek(1) == '<') ++pos_;
  if (!take('<')) {
    refuse(str_cat("the group (?", name(peek()),
                   " is not supported, expected (...), (?:...) or (?<name>...)"));
  }
  const size_t begin = pos_;
  while (kNameLetters.contains(peek())) ++pos_;
  if (pos_ == begin || !take('>')) refuse("a group's name is missing or not finished");
}

RegexTree Parser::parse_quantified(RegexTree atom) {
  int64_t min = 0, max = -1;
  if (!parse_count(min, max)) return atom;
  if (atom.kind == Kind::kBegin || atom.kind == Kind::kEnd) refuse("an anchor cannot be repeated");
  if (max >= 0 && min > max) refuse("a repetition's minimum is above its maximum");
  take('?');  // lazy
  if (peek() == '+') refuse("possessive repetition is not supported");
  if (peek() == '*' || peek() == '?' || peek() == '{') refuse("a repetition is repeated");
  RegexTree repeat{Kind::kRepeat};
  repeat.children.push_back(std::move(atom));
  repeat.min = min;
  repeat.max = max;
  return repeat;
}

bool Parser::parse_count(int64_t& min, int64_t& max) {
  if (take('*')) return true;
  if (take('+')) {
    min = 1;
    return true;
  }
  if (take('?')) {
    max = 1;
    return true;
  }
  if (!take('{')) return false;
  min = max = parse_number();
  if (take(',')) max = peek() == '}' ? -1 : parse_number();
  if (!take('}')) refuse("a repetition is {n}, {n,} or {n,m}; write \\{ for the character");
  return true;
}

int64_t Parser::parse_number() {
  if (peek() < '0' || peek() > '9') {
    refuse("a repetition is {n}, {n,} or {n,m}; write \\{ for the character");
  }
  int64_t number = 0;
  while (peek() >= '0' && peek() <= '9') {
    number = number * 10 + static_cast<int64_t>(text_[pos_++] - '0');
    if (number > kMaxCount) refuse(str_cat("a repetition's number is above ", kMaxCount));
  }
  return number;
}

// After the backslash. `inverted`: in a class that is negated, where what is certain and what is
// possible change places, so that the result is never too large.
CodeSet Parser::parse_escape(bool inverted) {
  if (auto set = parse_set_escape(inverted)) return *set;
  const char32_t code = parse_code_escape();
  return {{code, code}};
}

std::optional<CodeSet> Parser::parse_set_escape(bool inverted) {
  const char32_t c = peek();
  const bool is_negative = c >= 'A' && c <= 'Z';
  const RegexClass* found = regex_class(is_negative ? c - 'A' + 'a' : c);
  if (found == nullptr) return std::nullopt;
  ++pos_;
  const CodeSet& set = inverted == is_negative ? found->certain : found->possible;
  return is_negative ? set.complement() : set;
}

char32_t Parser::parse_code_escape() {
  const char32_t c = peek();
  if (c == kNothing) refuse("the text ends with a backslash");
  constexpr std::u32string_view kNames = U"tnvfr", kCodes = U"\t\n\v\f\r";
  if (const size_t i = kNames.find(c); i != std::u32string_view::npos) {
    ++pos_;
    return kCodes[i];
  }
  if (c == 'x' || c == 'u') {
    ++pos_;
    return c == 'x' ? parse_hex(2) : parse_unicode_escape();
  }
  if (c == 'b' || c == 'B') refuse(str_cat("the word boundary \\", name(c), " is not supported"));
  if (c == 'p' || c == 'P') refuse(str_cat("the Unicode class \\", name(c), " is not supported"));
  if (c == 'k' || (c >= '1' && c <= '9')) refuse("a back reference is not supported");
  if (is_ascii_letter_or_digit(c)) refuse(str_cat("the escape \\", name(c), " is not supported"));
  ++pos_;
  return c;
}

char32_t Parser::parse_hex(int32_t digits) {
  char32_t code = 0;
  for (int32_t i = 0; i < digits; ++i) {
    const char32_t c = peek();
    const bool digit = c >= '0' && c <= '9';
    const char32_t lower = c | 0x20;
    if (!digit && !(lower >= 'a' && lower <= 'f'))
      refuse(str_cat("expected ", digits, " hexadecimal digits"));
    code = code * 16 + (digit ? c - '0' : lower - 'a' + 10);
    ++pos_;
  }
  if (code == 0) refuse("NUL is not supported");
  return code;
}

char32_t Parser::parse_unicode_escape() {
  if (take('{')) {
    int32_t digits = 0;
    while (peek(static_cast<size_t>(digits)) != '}' && digits < 7) ++digits;
    const char32_t code = digits >= 1 && digits <= 6 ? parse_hex(digits) : 0x110000;
    if (code > 0x10ffff || !take('}'))
      refuse("expected \\u{...} with one to six hexadecimal digits");
    return code;
  }
  const char32_t code = parse_hex(4);
  if (code < 0xd800 || code > 0xdfff) return code;
  if (code > 0xdbff || !take('\\') || !take('u')) refuse("half of a surrogate pair");
  const char32_t low = parse_hex(4);
  if (low < 0xdc00 || low > 0xdfff) refuse("half of a surrogate pair");
  return 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
}

CodeSet Parser::parse_class() {
  const bool negated = take('^');
  if (peek() == ']') refuse("an empty class; write \\] for the character");
  CodeSet set;
  while (!take(']')) {
    if (peek() == '[' && (peek(1) == ':' || peek(1) == '.' || peek(1) == '=')) {
      refuse("a POSIX class is not supported");
    }
    if (peek() == '&' && peek(1) == '&') refuse("the intersection of classes is not supported");
    const auto first = parse_class_item(set, negated);
    if (peek() != '-' || peek(1) == ']' || peek(1) == kNothing) {
      if (first) set.add(*first, *first);
      continue;
    }
    ++pos_;
    const auto last = parse_class_item(set, negated);
    if (!first || !last) refuse("a range of a class must be between two characters");
    if (*first > *last) refuse("a range of a class is out of order");
    set.add(*first, *last);
  }
  return negated ? set.complement() : set;
}

// A single code point, or nothing: a set, which was added.
std::optional<char32_t> Parser::parse_class_item(CodeSet& set, bool negated) {
  const char32_t c = peek();
  if (c == kNothing) refuse("']' is missing");
  ++pos_;
  if (c != '\\') return c;
  if (auto escaped = parse_set_escape(negated)) {
    set.add(*escaped);
    return std::nullopt;
  }
  return parse_code_escape();
}

bool is_empty_text(const RegexTree& tree) {
  return tree.kind == Kind::kSequence && tree.children.empty();
}

// Anchors that stand at the text's ends become the empty text.
void Parser::check_anchors(RegexTree& tree, bool begins, bool ends) {
  if (tree.kind == Kind::kBegin || tree.kind == Kind::kEnd) {
    if (tree.kind == Kind::kBegin ? begins : ends) {
      tree = RegexTree{Kind::kSequence};
      return;
    }
    throw InvalidArgument(str_cat("structured_outputs: ", what_, ": ",
                                  tree.kind == Kind::kBegin ? "'^'" : "'$'",
                                  " within the text is not supported: the whole text is matched"));
  }
  const bool sequence = tree.kind == Kind::kSequence;
  if (tree.kind == Kind::kRepeat) begins = ends = false;
  for (size_t i = 0; i < tree.children.size(); ++i) {
    const bool is_last = std::all_of(
        tree.children.begin() + static_cast<ptrdiff_t>(i) + 1, tree.children.end(),
        [](const RegexTree& after) { return after.kind == Kind::kEnd || is_empty_text(after); });
    check_anchors(tree.children[i], begins, ends && (!sequence || is_last));
    if (sequence) begins = begins && is_empty_text(tree.children[i]);
  }
}

}  // namespace

RegexTree parse_regex(std::string_view regex, std::string_view what) {
  return Parser(regex, what).parse();
}

}  // namespace octavo
