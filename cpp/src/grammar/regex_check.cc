#include "grammar/regex_check.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>

#include "base/check.h"
#include "grammar/regex_tree.h"
#include "grammar/text_check.h"
#include "octavo/error.h"

namespace octavo {
namespace {

using Kind = RegexTree::Kind;

// Of an expression, with its repetitions written out: what bounds the time to compile it.
constexpr int64_t kMaxSize = 20'000;

int64_t saturated_product(int64_t a, int64_t b) {
  return a != 0 && b > kMaxSize / a ? kMaxSize + 1 : a * b;
}

int64_t size_of(const RegexTree& tree) {
  if (tree.kind == Kind::kSet) return 1 + static_cast<int64_t>(tree.set.ranges().size()) / 4;
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

// A trie of words: their code points.
struct Words {
  std::map<char32_t, Words> next;
  bool ends = false;
};

RegexTree others_than(const Words& words, const CodeSet& codes) {
  RegexTree anything{Kind::kRepeat};
  anything.children.push_back(RegexTree{Kind::kSet, codes});
  RegexTree choice{Kind::kChoice};
  if (!words.ends) choice.children.push_back(RegexTree{Kind::kSequence});
  CodeSet named;
  for (const auto& [code, rest] : words.next) {
    named.add(code, code);
    RegexTree sequence{Kind::kSequence};
    sequence.children.push_back(RegexTree{Kind::kSet, {{code, code}}});
    sequence.children.push_back(others_than(rest, codes));
    choice.children.push_back(std::move(sequence));
  }
  RegexTree sequence{Kind::kSequence};
  sequence.children.push_back(RegexTree{Kind::kSet, named.complement().intersection(codes)});
  sequence.children.push_back(std::move(anything));
  choice.children.push_back(std::move(sequence));
  return choice;
}

}  // namespace

std::string plain_regex(std::string_view regex, RegexText text, std::string_view what) {
  const bool json = text == RegexText::kJsonString;
  RegexTree tree = parse_regex(regex, what);
  if (const int64_t size = size_of(tree); size > kMaxSize) {
    throw InvalidArgument(str_cat("structured_outputs: ", what,
                                  ": it is too large with its repetitions written out, at most ",
                                  kMaxSize, " parts are possible"));
  }
  auto possible = limited(std::move(tree), json ? CodeSet::json_plain() : CodeSet{{1, 0x10ffff}});
  if (!possible) {
    throw InvalidArgument(str_cat("structured_outputs: ", what, ": no text matches it",
                                  json ? " that JSON writes without escapes" : ""));
  }
  std::string result;
  write(*possible, result);
  return result;
}

std::string regex_of_length(int64_t min_length, int64_t max_length) {
  RegexTree tree{Kind::kRepeat};
  tree.children.push_back(RegexTree{Kind::kSet, CodeSet::json_plain()});
  tree.min = min_length;
  tree.max = max_length;
  std::string result;
  write(tree, result);
  return result;
}

std::string regex_of_other_words(const std::vector<std::string>& words) {
  Words root;
  for (const std::string& word : words) {
    Words* at = &root;
    for (std::string_view rest = word; !rest.empty();) at = &at->next[take_code_point(rest)];
    at->ends = true;
  }
  std::string result;
  write(others_than(root, CodeSet::json_plain()), result);
  return result;
}

}  // namespace octavo
