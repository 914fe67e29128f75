// What the text of a request must look like. A plain value; the engine checks it once, in
// Engine::add_request or Engine::validate.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "octavo/export.h"

namespace octavo {

enum class StructureKind : uint8_t {
  kJsonSchema,     // text: a JSON schema
  kJsonObject,     // any JSON object
  kRegex,          // text: a regular expression that the whole output matches
  kChoice,         // one of `choices`
  kGrammar,        // text: a grammar in GBNF's form, whose start is `root`
  kStructuralTag,  // text: a structural tag of xgrammar, as JSON
};

struct OCTAVO_EXPORT StructuredOutputs {
  StructureKind kind = StructureKind::kJsonObject;
  std::string text;                   // UTF-8
  std::vector<std::string> choices;   // UTF-8, none empty
  bool any_whitespace = true;         // JSON: white space may come where JSON allows it
  bool additional_properties = true;  // JSON schema: what it says; false: objects hold nothing
                                      // that the schema does not name

  bool operator==(const StructuredOutputs&) const = default;
};

}  // namespace octavo
