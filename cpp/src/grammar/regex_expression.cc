#include "grammar/regex_expression.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/check.h"
#include "grammar/regex_tree.h"
#include "grammar/text_check.h"
#include "octavo/error.h"

namespace octavo {
namespace {

using Kind = RegexTree::Kind;

// With the repetitions written out, but for those that are counted. Each part is a state; to
// compile one that many characters leave takes some 10 ms for 50,000 tokens, one that few leave far
// less.
constexpr int64_t kFewCodes = 10;
constexpr int64_t kManyCodesSize = 20;  // where the size of few codes is 1
constexpr int64_t kMaxSize = 20'000;
constexpr int64_t kMaxTotalSize = 60'000;  // of all expressions of a structure
constexpr size_t kMaxRules = 500;
constexpr int64_t kMaxWritten = 6000;  // up to here, bounded repetitions are written out
constexpr int64_t kMinCounted = 16;    // beyond it, those with more than so many choices are not
constexpr int32_t kMaxUnbounded = 50;
// Above this, the library makes a rule of a repetition, whose masks allow tokens that do not fit.
constexpr int64_t kMaxRepeat = 128;
constexpr size_t kMaxWordNodes = 32;

int64_t saturated_product(int64_t a, int64_t b) {
  return a != 0 && b > kMaxSize / a ? kMaxSize + 1 : a * b;
}

int64_t size_of(const CodeSet& set) {
  int64_t codes = 0;
  for (const auto& [first, last] : set.ranges()) codes += int64_t{last} - int64_t{first} + 1;
  if (codes <= kFewCodes) return 1;
  return kManyCodesSize * (1 + static_cast<int64_t>(set.ranges().size()) / 16);
}

int64_t size_of(const RegexTree& tree) {
  if (tree.kind == Kind::kSet) return size_of(tree.set);
  int64_t size = 1;
  for (const RegexTree& child : tree.children) size = std::min(size + size_of(child), kMaxSize + 1);
  if (tree.kind != Kind::kRepeat) return size;
  return saturated_product(size,
                           std::max({tree.min + (tree.max < 0 ? 1 : 0), tree.max, int64_t{1}}));
}

// Nothing: no text has this form with those code points.
std::optional<RegexTree> limited(RegexTree tree, const CodeSet& codes) {
  if (tree.kind == Kind::kSet) {
    tree.set = tree.set.intersection(codes);
    if (tree.set.empty()) return std::nullopt;
    return tree;
  }
  if (tree.kind == Kind::kRepeat && tree.max == 0) return RegexTree{Kind::kSequence};
  std::vector<RegexTree> children;
  for (RegexTree& child : tree.children) {
    auto rest = limited(std::move(child), codes);
    if (rest) {
      children.push_back(std::move(*rest));
    } else if (tree.kind == Kind::kSequence) {
      return std::nullopt;
    }
  }
  if (children.empty() && tree.kind == Kind::kChoice) return std::nullopt;
  if (children.empty() && tree.kind == Kind::kRepeat) {
    return tree.min == 0 ? std::optional(RegexTree{Kind::kSequence}) : std::nullopt;
  }
  tree.children = std::move(children);
  return tree;
}

void write_code(char32_t code, std::string& out) {
  const bool plain = (code >= '0' && code <= '9') || (code >= 'A' && code <= 'Z') ||
                     (code >= 'a' && code <= 'z') || code == ' ' || code == '_';
  if (plain) {
    out += static_cast<char>(code);
    return;
  }
  constexpr std::string_view kHexDigits = "0123456789ABCDEF";
  out += "\\u{";
  for (int shift = 20; shift >= 0; shift -= 4) {
    if ((code >> shift) != 0 || shift == 0) out += kHexDigits[(code >> shift) & 15];
  }
  out += '}';
}

void write_set(const CodeSet& set, std::string& out) {
  const auto& ranges = set.ranges();
  if (ranges.size() == 1 && ranges[0].first == ranges[0].second) {
    return write_code(ranges[0].first, out);
  }
  out += '[';
  for (const auto& [first, last] : ranges) {
    write_code(first, out);
    if (first == last) continue;
    out += '-';
    write_code(last, out);
  }
  out += ']';
}

void write(const RegexTree& tree, std::string& out);

void write_grouped(const RegexTree& tree, std::string& out) {
  if (tree.kind == Kind::kSet) return write_set(tree.set, out);
  out += "(?:";
  write(tree, out);
  out += ')';
}

void write(const RegexTree& tree, std::string& out) {
  switch (tree.kind) {
    case Kind::kSet: return write_set(tree.set, out);
    case Kind::kSequence:
      for (const RegexTree& child : tree.children) {
        child.kind == Kind::kChoice ? write_grouped(child, out) : write(child, out);
      }
      return;
    case Kind::kChoice:
      for (size_t i = 0; i < tree.children.size(); ++i) {
        if (i > 0) out += '|';
        write(tree.children[i], out);
      }
      return;
    case Kind::kRepeat:
      write_grouped(tree.children[0], out);
      if (tree.min == 0 && tree.max < 0) {
        out += '*';
      } else {
        out += str_cat('{', tree.min, ',');
        if (tree.max >= 0) out += std::to_string(tree.max);
        out += '}';
      }
      return;
    case Kind::kBegin:
    case Kind::kEnd: return;
  }
}

std::string quoted_regex(const RegexTree& tree) {
  std::string regex;
  write(tree, regex);
  std::string result = "Regex(\"";
  for (const char c : regex) result += c == '\\' ? std::string("\\\\") : std::string(1, c);
  return result + "\")";
}

RegexTree repeat(RegexTree child, int64_t min, int64_t max) {
  RegexTree tree{Kind::kRepeat};
  tree.children.push_back(std::move(child));
  tree.min = min;
  tree.max = max;
  return tree;
}

bool repeats_set(const RegexTree& tree) {
  return tree.kind == Kind::kRepeat && tree.children[0].kind == Kind::kSet;
}

// Whether a bounded repetition of one code point becomes a rule whose code points the library
// counts. That is one state, where writing it out makes as many as the bound; but masks near the
// bound are slow. So what is short is written out, as long as the structure's states are few.
bool is_counted(const RegexTree& tree, int64_t size) {
  if (!repeats_set(tree) || tree.max < 0) return false;
  const int64_t most = size + size_of(tree) <= kMaxWritten ? kMaxRepeat : kMinCounted;
  return tree.max - tree.min > most;
}

// Repetitions above kMaxRepeat as several.
RegexTree in_pieces(RegexTree tree) {
  for (RegexTree& child : tree.children) child = in_pieces(std::move(child));
  if (tree.kind != Kind::kRepeat || std::max(tree.min, tree.max) <= kMaxRepeat) return tree;
  const RegexTree& child = tree.children[0];
  RegexTree sequence{Kind::kSequence};
  for (int64_t rest = tree.min; rest > 0; rest -= kMaxRepeat) {
    const int64_t piece = std::min(rest, kMaxRepeat);
    sequence.children.push_back(repeat(child, piece, piece));
  }
  if (tree.max < 0) sequence.children.push_back(repeat(child, 0, -1));
  for (int64_t rest = tree.max - tree.min; rest > 0; rest -= kMaxRepeat) {
    sequence.children.push_back(repeat(child, 0, std::min(rest, kMaxRepeat)));
  }
  return sequence;
}

// The parts of a sequence, with those of sequences in it.
void split(RegexTree tree, std::vector<RegexTree>& parts) {
  if (tree.kind != Kind::kSequence) {
    parts.push_back(std::move(tree));
    return;
  }
  for (RegexTree& child : tree.children) split(std::move(child), parts);
}

int32_t num_unbounded(const RegexTree& tree) {
  int32_t count = tree.kind == Kind::kRepeat && tree.max < 0 ? 1 : 0;
  for (const RegexTree& child : tree.children) count += num_unbounded(child);
  return count;
}

// Writes the body of a rule: expressions, and rules for what is counted.
class BodyWriter {
 public:
  BodyWriter(RegexText text, std::string_view what, ExtraRules& rules)
      // What follows is known for a string: with it, the library decides more tokens ahead.
      : after_(text == RegexText::kJsonString ? " (=\"\\\"\")" : ""), what_(what), rules_(rules) {}

  void add(RegexTree part, bool is_last) {
    if (repeats_set(part) && part.min > kMaxRepeat) add_blocks(part);
    if (!is_counted(part, rules_.size() + size_)) return add_plain(std::move(part));
    const RegexTree& set = part.children[0];
    if (part.min > 0) add_plain(repeat(set, part.min, part.min));
    finish_plain();
    const std::string attributes = str_cat("[max_chars=", part.max - part.min, "]");
    const std::string counted = quoted_regex(repeat(set, 0, -1));
    body_ += rules_.add(attributes, counted + (is_last ? after_ : ""), kManyCodesSize, what_) + " ";
  }

  std::string finish() {
    finish_plain();
    if (body_.empty()) body_ = "\"\"";
    return rules_.add("", body_ + after_, size_, what_);
  }

 private:
  // A long minimum as one rule, many times.
  void add_blocks(RegexTree& part) {
    finish_plain();
    const RegexTree block = repeat(part.children[0], kMaxRepeat, kMaxRepeat);
    const std::string name = rules_.add("", quoted_regex(block), size_of(block), what_);
    for (; part.min >= kMaxRepeat; part.min -= kMaxRepeat) {
      body_ += name + " ";
      if (part.max >= 0) part.max -= kMaxRepeat;
    }
  }

  void add_plain(RegexTree part) {
    size_ += size_of(part);
    if (size_ > kMaxSize) {
      throw InvalidArgument(str_cat("structured_outputs: ", what_,
                                    ": it is too large with its repetitions written out, at most ",
                                    kMaxSize, " parts are possible"));
    }
    plain_.children.push_back(std::move(part));
  }

  void finish_plain() {
    if (!plain_.children.empty()) body_ += quoted_regex(in_pieces(std::move(plain_))) + " ";
    plain_ = RegexTree{Kind::kSequence};
  }

  const std::string after_;
  const std::string_view what_;
  ExtraRules& rules_;
  std::string body_;
  RegexTree plain_{Kind::kSequence};
  int64_t size_ = 0;  // of the body's expressions
};

std::string rule_of(RegexTree tree, RegexText text, std::string_view what, ExtraRules& rules) {
  if (num_unbounded(tree) > kMaxUnbounded) {
    throw InvalidArgument(str_cat("structured_outputs: ", what, ": more than ", kMaxUnbounded,
                                  " repetitions without a bound"));
  }
  std::vector<RegexTree> parts;
  split(std::move(tree), parts);
  BodyWriter writer(text, what, rules);
  for (size_t i = 0; i < parts.size(); ++i) writer.add(std::move(parts[i]), i + 1 == parts.size());
  return writer.finish();
}

// A trie of words: their code points.
struct Words {
  std::map<char32_t, Words> next;
  bool ends = false;
};

// The number of code points that the words begin with, up to `depth` each.
size_t num_nodes(const Words& words, size_t depth) {
  size_t count = words.next.size();
  if (depth == 0) return count;
  for (const auto& [code, rest] : words.next) count += num_nodes(rest, depth - 1);
  return count;
}

RegexTree sequence_of(RegexTree first, RegexTree second) {
  RegexTree sequence{Kind::kSequence};
  sequence.children.push_back(std::move(first));
  sequence.children.push_back(std::move(second));
  return sequence;
}

// Texts that leave the words' ways within `depth` more code points.
RegexTree others_than(const Words& words, const CodeSet& codes, size_t depth) {
  RegexTree choice{Kind::kChoice};
  if (!words.ends) choice.children.push_back(RegexTree{Kind::kSequence});
  CodeSet named;
  for (const auto& [code, rest] : words.next) {
    named.add(code, code);
    if (depth == 0) continue;
    choice.children.push_back(
        sequence_of(RegexTree{Kind::kSet, {{code, code}}}, others_than(rest, codes, depth - 1)));
  }
  choice.children.push_back(
      sequence_of(RegexTree{Kind::kSet, named.complement().intersection(codes)},
                  repeat(RegexTree{Kind::kSet, codes}, 0, -1)));
  return choice;
}

}  // namespace

std::string ExtraRules::add(const std::string& attributes, const std::string& body, int64_t size,
                            std::string_view what) {
  const auto [found, is_new] = numbers_.emplace(attributes + " ::= " + body, numbers_.size());
  if (is_new) size_ += size;
  if (size_ > kMaxTotalSize || numbers_.size() > kMaxRules) {
    throw InvalidArgument(str_cat("structured_outputs: ", what,
                                  ": all patterns together are too large, at most ", kMaxTotalSize,
                                  " parts and ", kMaxRules, " patterns are possible"));
  }
  return str_cat("octavo_", found->second);
}

std::string ExtraRules::text() const {
  std::string result;
  for (const auto& [rule, number] : numbers_) {
    result += str_cat("octavo_", number, rule, '\n');
  }
  return result;
}

std::string regex_expression(std::string_view regex, RegexText text, std::string_view what,
                             ExtraRules& rules) {
  const bool json = text == RegexText::kJsonString;
  auto possible =
      limited(parse_regex(regex, what), json ? CodeSet::json_plain() : CodeSet{{1, 0x10ffff}});
  if (!possible) {
    throw InvalidArgument(str_cat("structured_outputs: ", what, ": no text matches it",
                                  json ? " that JSON writes without escapes" : ""));
  }
  return rule_of(std::move(*possible), text, what, rules);
}

std::string length_expression(int64_t min_length, int64_t max_length, std::string_view what,
                              ExtraRules& rules) {
  RegexTree character{Kind::kSet, CodeSet::json_plain()};
  return rule_of(repeat(std::move(character), min_length, max_length), RegexText::kJsonString, what,
                 rules);
}

std::string other_words_expression(const std::vector<std::string>& words, std::string_view what,
                                   ExtraRules& rules) {
  Words root;
  for (const std::string& word : words) {
    Words* at = &root;
    for (std::string_view rest = word; !rest.empty();) at = &at->next[take_code_point(rest)];
    at->ends = true;
  }
  size_t depth = 0;
  while (depth < 32 && num_nodes(root, depth + 1) <= kMaxWordNodes) ++depth;
  const RegexTree tree = others_than(root, CodeSet::json_plain(), depth);
  return rules.add("", quoted_regex(tree) + " (=\"\\\"\")",
                   static_cast<int64_t>(kMaxWordNodes) * kManyCodesSize, what);
}

}  // namespace octavo
