#include "grammar/structure_parser.h"

#include <algorithm>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/printable.h"
#include "grammar/endless_rule.h"
#include "grammar/json_grammar.h"
#include "grammar/regex_expression.h"
#include "grammar/structural_tag_check.h"
#include "grammar/text_check.h"
#include "grammar/xgrammar_log.h"
#include "octavo/error.h"

namespace octavo {
namespace {

constexpr size_t kMaxChoices = 16384;

[[noreturn]] void refuse(const std::string& message) {
  throw InvalidArgument("structured_outputs: " + message);
}

// The library's messages may hold the user's text.
std::string readable(std::string_view message) {
  while (!message.empty() && (message.back() == '\n' || message.back() == ' ')) {
    message.remove_suffix(1);
  }
  return printable(message, 400);
}

xgrammar::Grammar from_schema(const std::string& schema, const StructuredOutputs& structure) {
  return xgrammar::Grammar::FromEBNF(
      json_grammar(schema, structure.additional_properties, structure.any_whitespace));
}

xgrammar::Grammar from_regex(const std::string& regex) {
  ExtraRules rules;
  const std::string expression = regex_expression(regex, RegexText::kAny, "regex", rules);
  return xgrammar::Grammar::FromEBNF("root ::= " + expression + "\n" + rules.text());
}

// As a string of the library's grammar notation. Bytes above 0x7f stay: they are UTF-8.
std::string quoted(std::string_view text) {
  constexpr std::string_view kHexDigits = "0123456789abcdef";
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || c == '"' || c == '\\') {
      result += {'\\', 'u', '0', '0', kHexDigits[byte >> 4], kHexDigits[byte & 15]};
    } else {
      result += c;
    }
  }
  return result + '"';
}

xgrammar::Grammar from_choices(const std::vector<std::string>& choices) {
  if (choices.empty()) refuse("choice: the list is empty");
  if (choices.size() > kMaxChoices) {
    refuse(str_cat("choice: ", choices.size(), " choices, at most ", kMaxChoices));
  }
  std::string ebnf = "root ::= ";
  for (size_t i = 0; i < choices.size(); ++i) {
    const std::string name = str_cat("choice[", i, "]");
    if (choices[i].empty()) refuse(name + ": is empty");
    check_text(choices[i], name);
    ebnf += (i == 0 ? "" : " | ") + quoted(choices[i]);
  }
  return xgrammar::Grammar::FromEBNF(ebnf + "\n");
}

xgrammar::Grammar from_structural_tag(const std::string& text,
                                      const xgrammar::TokenizerInfo& tokenizer_info) {
  auto result = xgrammar::Grammar::FromStructuralTag(text, tokenizer_info);
  if (auto* grammar = std::get_if<xgrammar::Grammar>(&result)) return std::move(*grammar);
  const auto& error = std::get<xgrammar::StructuralTagError>(result);
  throw std::runtime_error(std::visit([](const auto& e) { return std::string(e.what()); }, error));
}

xgrammar::Grammar parse(const StructuredOutputs& structure,
                        const xgrammar::TokenizerInfo& tokenizer_info) {
  switch (structure.kind) {
    case StructureKind::kJsonSchema: return from_schema(structure.text, structure);
    case StructureKind::kJsonObject: return from_schema(R"({"type":"object"})", structure);
    case StructureKind::kRegex: return from_regex(structure.text);
    case StructureKind::kChoice: return from_choices(structure.choices);
    case StructureKind::kGrammar:
      check_grammar_text(structure.text, "grammar");
      return xgrammar::Grammar::FromEBNF(structure.text);
    case StructureKind::kStructuralTag:
      return from_structural_tag(
          enforced_structural_tag(structure.text, structure.additional_properties,
                                  structure.any_whitespace),
          tokenizer_info);
  }
  refuse("the kind is unknown");
}

std::string_view name_of(StructureKind kind) {
  switch (kind) {
    case StructureKind::kJsonSchema: return "json";
    case StructureKind::kJsonObject: return "json_object";
    case StructureKind::kRegex: return "regex";
    case StructureKind::kChoice: return "choice";
    case StructureKind::kGrammar: return "grammar";
    case StructureKind::kStructuralTag: return "structural_tag";
  }
  return "structure";
}

// For the kinds whose rules are the user's own.
void check_endings(StructureKind kind, const xgrammar::Grammar& grammar) {
  if (kind != StructureKind::kGrammar && kind != StructureKind::kStructuralTag) return;
  if (const std::string name = endless_rule(grammar); !name.empty()) {
    refuse(str_cat(name_of(kind), ": the rule \"", printable(name),
                   "\" never ends, expected a way through it to a finite text"));
  }
}

}  // namespace

xgrammar::Grammar parse_structure(const StructuredOutputs& structure,
                                  const xgrammar::TokenizerInfo& tokenizer_info) {
  XgrammarWarnings warnings;
  try {
    xgrammar::Grammar grammar = parse(structure, tokenizer_info);
    if (!warnings.first().empty()) {
      refuse(str_cat(name_of(structure.kind), ": ", readable(warnings.first())));
    }
    check_endings(structure.kind, grammar);
    return grammar;
  } catch (const InvalidArgument&) {
    throw;
  } catch (const std::exception& e) {
    refuse(str_cat(name_of(structure.kind), ": ", readable(e.what())));
  }
}

}  // namespace octavo
