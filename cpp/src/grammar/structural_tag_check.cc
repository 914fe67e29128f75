#include "grammar/structural_tag_check.h"

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"
#include "base/printable.h"
#include "grammar/json_grammar.h"
#include "grammar/regex_expression.h"
#include "grammar/schema_source.h"
#include "grammar/text_check.h"
#include "octavo/error.h"

namespace octavo {
namespace {

[[noreturn]] void refuse(const std::string& message) {
  throw InvalidArgument("structured_outputs: structural_tag: " + message);
}

class Checker {
 public:
  Checker(bool additional_properties, bool any_whitespace)
      : additional_properties_(additional_properties), any_whitespace_(any_whitespace) {}

  void check(Schema& part) const {
    if (part.is_object()) check_object(part);
    if (!part.is_structured()) return;
    for (auto item = part.begin(); item != part.end(); ++item) {
      check(*item);
    }
  }

 private:
  void check_object(Schema& part) const {
    const Schema type = part.value("type", Schema());
    if (type == "qwen_xml_parameter") refuse("the format \"qwen_xml_parameter\" is not supported");
    if (type == "regex" && part.contains("pattern") && part["pattern"].is_string()) {
      return replace_regex(part);
    }
    if (type == "grammar" && part.contains("grammar") && part["grammar"].is_string()) {
      check_grammar_text(part["grammar"].get<std::string>(), "structural_tag: grammar");
    }
    if (!part.contains("json_schema")) return;
    for (const auto& [key, value] : part.items()) {
      const bool plain = key == "type" || key == "json_schema" ||
                         (key == "style" && value == "json") ||
                         (key == "any_order" && value == false);
      if (!plain) {
        refuse(str_cat("\"", printable(key), "\" of ", printable(value.dump()),
                       " beside \"json_schema\" is not supported"));
      }
    }
    part = {{"type", "grammar"},
            {"grammar",
             json_grammar(part["json_schema"].dump(), additional_properties_, any_whitespace_)}};
  }

  static void replace_regex(Schema& part) {
    ExtraRules rules;
    const std::string expression = regex_expression(
        part["pattern"].get<std::string>(), RegexText::kAny, "structural_tag: pattern", rules);
    part = {{"type", "grammar"}, {"grammar", "root ::= " + expression + "\n" + rules.text()}};
  }

  const bool additional_properties_, any_whitespace_;
};

// {"structures": [{"begin", "schema", "end"}], "triggers": [...]} as a format.
Schema modern(const Schema& older) {
  Schema tags = Schema::array();
  if (!older["structures"].is_array()) refuse("\"structures\": expected an array");
  for (const Schema& item : older["structures"]) {
    if (!item.is_object() || !item.contains("begin") || !item.contains("end")) {
      refuse("\"structures\": expected objects with \"begin\", \"schema\" and \"end\"");
    }
    const Schema content = {{"type", "json_schema"},
                            {"json_schema", item.value("schema", Schema(true))}};
    tags.push_back({{"begin", item["begin"]}, {"content", content}, {"end", item["end"]}});
  }
  const Schema format = {
      {"type", "triggered_tags"}, {"triggers", older["triggers"]}, {"tags", tags}};
  return {{"type", "structural_tag"}, {"format", format}};
}

}  // namespace

std::string enforced_structural_tag(std::string_view text, bool additional_properties,
                                    bool any_whitespace) {
  Schema tag = SchemaSource(text, "structural_tag").root();
  if (!tag.is_object()) refuse("expected an object");
  if (tag.contains("structures") && tag.contains("triggers")) tag = modern(tag);
  Checker(additional_properties, any_whitespace).check(tag);
  return tag.dump();
}

}  // namespace octavo
