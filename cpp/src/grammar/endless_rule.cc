#include "grammar/endless_rule.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "base/check.h"

namespace octavo {
namespace {

// What an expression is, by the library's numbers.
enum Kind : int32_t {
  kClass = 1,
  kRuleRef = 4,
  kSequence = 5,
  kChoices = 6,
  kTagDispatch = 7,
  kRepeat = 8,
  kTokenTagDispatch = 11,
};

// The expressions of a grammar by their numbers, and the rules by those of their bodies.
class Expressions {
 public:
  explicit Expressions(const xgrammar::Grammar& grammar);

  // The first rule that can be reached and is not finite; negative: there is none.
  int64_t first_endless() const;
  // Where following what is not finite from `rule` on comes back to itself, or ends.
  size_t cause(size_t rule) const;
  const std::string& name(size_t rule) const { return names_.at(rule); }

 private:
  int32_t kind(size_t at) const { return data_.at(begins_.at(at)); }
  std::span<const int32_t> operands(size_t at) const;
  std::vector<size_t> parts(size_t at) const;
  size_t num_needed(size_t at) const;
  void find_finite();
  void find_reached(size_t root);

  std::vector<std::string> names_;  // [rules], as the following
  std::vector<size_t> bodies_;
  std::vector<size_t> begins_;  // [expressions], of data_
  std::vector<int32_t> data_;   // for each: kind, number of operands, operands
  std::vector<bool> is_finite_, is_reached_;
};

Expressions::Expressions(const xgrammar::Grammar& grammar) {
  const auto json = nlohmann::json::parse(grammar.SerializeJSON());
  for (const auto& rule : json.at("rules")) {
    names_.push_back(rule.at(0));
    bodies_.push_back(rule.at(1));
  }
  data_ = json.at("grammar_expr_data").get<std::vector<int32_t>>();
  begins_ = json.at("grammar_expr_indptr").get<std::vector<size_t>>();
  find_finite();
  find_reached(json.at("root_rule_id"));
}

std::span<const int32_t> Expressions::operands(size_t at) const {
  const size_t begin = begins_.at(at), count = static_cast<size_t>(data_.at(begin + 1));
  OCTAVO_CHECK(begin + 2 + count <= data_.size(), "structured_outputs: the grammar is malformed");
  return {data_.data() + begin + 2, count};
}

// The expressions that an expression is made of.
std::vector<size_t> Expressions::parts(size_t at) const {
  const auto values = operands(at);
  std::vector<size_t> result;
  const auto add_rules = [&](size_t first, size_t last) {  // every second one
    for (size_t i = first; i < last; i += 2) {
      result.push_back(bodies_.at(static_cast<size_t>(values[i])));
    }
  };
  switch (kind(at)) {
    case kSequence:
    case kChoices: result.assign(values.begin(), values.end()); break;
    case kRuleRef:
    case kRepeat: add_rules(0, 1); break;
    case kTagDispatch: add_rules(1, values.size() - 2); break;
    case kTokenTagDispatch: add_rules(2, 1 + 2 * static_cast<size_t>(values[0])); break;
    default: break;
  }
  return result;
}

// How many of the parts must be finite, or the expression is not.
size_t Expressions::num_needed(size_t at) const {
  const auto values = operands(at);
  switch (kind(at)) {
    case kClass: return values.size() == 1 && values[0] == 0 ? 1 : 0;  // []: no character
    case kRuleRef:
    case kChoices: return 1;
    case kSequence: return values.size();
    case kRepeat: return values[1] > 0 ? 1 : 0;
    default: return 0;
  }
}

void Expressions::find_finite() {
  std::vector<std::vector<size_t>> users(begins_.size());
  std::vector<size_t> needed(begins_.size());
  std::vector<size_t> found;
  for (size_t at = 0; at < begins_.size(); ++at) {
    for (const size_t part : parts(at)) users.at(part).push_back(at);
    needed[at] = num_needed(at);
    if (needed[at] == 0) found.push_back(at);
  }
  is_finite_.assign(begins_.size(), false);
  while (!found.empty()) {
    const size_t at = found.back();
    found.pop_back();
    is_finite_[at] = true;
    for (const size_t user : users[at]) {
      if (needed[user] > 0 && --needed[user] == 0) found.push_back(user);
    }
  }
}

void Expressions::find_reached(size_t root) {
  is_reached_.assign(begins_.size(), false);
  std::vector<size_t> open = {bodies_.at(root)};
  while (!open.empty()) {
    const size_t at = open.back();
    open.pop_back();
    if (is_reached_.at(at)) continue;
    is_reached_[at] = true;
    for (const size_t part : parts(at)) open.push_back(part);
  }
}

int64_t Expressions::first_endless() const {
  for (size_t rule = 0; rule < bodies_.size(); ++rule) {
    if (is_reached_.at(bodies_[rule]) && !is_finite_[bodies_[rule]]) {
      return static_cast<int64_t>(rule);
    }
  }
  return -1;
}

size_t Expressions::cause(size_t rule) const {
  std::vector<bool> seen(begins_.size(), false);
  for (size_t at = bodies_.at(rule); !seen[at];) {
    seen[at] = true;
    const auto rest = parts(at);
    const auto next =
        std::find_if(rest.begin(), rest.end(), [&](size_t part) { return !is_finite_[part]; });
    if (next == rest.end()) break;
    at = *next;
    const auto body = std::find(bodies_.begin(), bodies_.end(), at);
    if (body != bodies_.end()) rule = static_cast<size_t>(body - bodies_.begin());
  }
  return rule;
}

}  // namespace

std::string endless_rule(const xgrammar::Grammar& grammar) {
  const Expressions expressions(grammar);
  const int64_t rule = expressions.first_endless();
  return rule < 0 ? "" : expressions.name(expressions.cause(static_cast<size_t>(rule)));
}

}  // namespace octavo
