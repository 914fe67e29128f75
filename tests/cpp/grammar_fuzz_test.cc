// Random and mutated structures: nothing but InvalidArgument is thrown, nothing crashes or hangs,
// and what compiles has masks that its matcher agrees with.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "grammar_help.h"
#include "json_validator.h"
#include "octavo/error.h"

namespace octavo {
namespace {

using nlohmann::json;
using test::Compiler;
using State = GrammarJob::State;
using Rng = std::mt19937;

std::string pick(Rng& rng, const std::vector<std::string>& words) {
  return words[rng() % words.size()];
}

json random_value(Rng& rng, int depth) {
  switch (rng() % (depth > 0 ? 8 : 6)) {
    case 0: return static_cast<int64_t>(rng() % 20) - 5;
    case 1: return static_cast<double>(rng() % 100) / 8;
    case 2:
      return pick(rng, {"", "a", "b\"c", "é", "#/$defs/x", "string", "integer", "^a+$", "date"});
    case 3: return rng() % 2 == 0;
    case 4: return nullptr;
    case 5: return json::array();
    case 6: return json::array({random_value(rng, depth - 1), random_value(rng, depth - 1)});
    default: return json{{pick(rng, {"a", "type", "items"}), random_value(rng, depth - 1)}};
  }
}

json random_schema(Rng& rng, int depth);

json random_properties(Rng& rng, int depth) {
  json result = json::object();
  for (const char* name : {"a", "ab", "title", "é"}) {
    if (rng() % 2 == 0) result[name] = random_schema(rng, depth - 1);
  }
  return result;
}

void add_keyword(json& schema, Rng& rng, int depth) {
  const auto sub = [&] { return depth > 0 ? random_schema(rng, depth - 1) : json(true); };
  const int64_t small = rng() % 4;
  switch (rng() % 24) {
    case 0:
      schema["type"] = pick(rng, {"string", "integer", "number", "object", "array", "null"});
      break;
    case 1: schema["type"] = {"integer", pick(rng, {"string", "null", "array"})}; break;
    case 2: schema["properties"] = random_properties(rng, depth); break;
    case 3: schema["required"] = {pick(rng, {"a", "b", "title"})}; break;
    case 4: schema["additionalProperties"] = rng() % 2 == 0 ? json(false) : sub(); break;
    case 5: schema["items"] = sub(); break;
    case 6: schema["prefixItems"] = {sub(), sub()}; break;
    case 7: schema["minItems"] = small; break;
    case 8: schema["maxItems"] = small + 1; break;
    case 9: schema["minLength"] = small; break;
    case 10: schema["maxLength"] = small * 40; break;
    case 11: schema["pattern"] = pick(rng, {"^a+$", "[^x]*", "(ab|é){1,3}", "\\d+-\\w"}); break;
    case 12: schema["minimum"] = random_value(rng, 0); break;
    case 13: schema["maximum"] = small * 30; break;
    case 14: schema["enum"] = {random_value(rng, 1), random_value(rng, 1)}; break;
    case 15: schema["anyOf"] = {sub(), sub()}; break;
    case 16: schema["oneOf"] = {sub(), sub()}; break;
    case 17: schema["allOf"] = {sub(), sub()}; break;
    case 18: schema["$ref"] = pick(rng, {"#", "#/$defs/x", "#/$defs/y", "#/properties/a"}); break;
    case 19: schema["minProperties"] = small; break;
    case 20: schema["maxProperties"] = small; break;
    case 21: schema["propertyNames"] = sub(); break;
    case 22: schema["patternProperties"] = {{pick(rng, {"^a", "b$", "x*"}), sub()}}; break;
    default:
      schema[pick(rng, {"title", "multipleOf", "uniqueItems", "format", "const"})] =
          random_value(rng, 1);
  }
}

json random_schema(Rng& rng, int depth) {
  if (rng() % 12 == 0) return rng() % 4 != 0;
  json schema = json::object();
  for (size_t n = rng() % 4 + (depth == 3); n > 0; --n) add_keyword(schema, rng, depth);
  return schema;
}

std::string mutated(std::string text, Rng& rng) {
  for (size_t n = rng() % 4; n > 0 && !text.empty(); --n) {
    const size_t at = rng() % text.size();
    switch (rng() % 4) {
      case 0: text.erase(at, rng() % 4 + 1); break;
      case 1: text[at] = static_cast<char>(rng() % 256); break;
      case 2: text.insert(at, text.substr(rng() % text.size(), rng() % 8)); break;
      default: text.insert(at, 1, "()[]{}|*+?\\\"^$.,-:0129aé"[rng() % 24]);
    }
  }
  return text;
}

struct Counts {
  int refused = 0, ready = 0, failed = 0;
};

// Null if it was refused.
std::shared_ptr<GrammarJob> try_compile(Compiler& compiler, const StructuredOutputs& what,
                                        Counts& counts) {
  std::shared_ptr<GrammarJob> job;
  try {
    job = compiler.compile(what);
  } catch (const InvalidArgument& e) {
    ++counts.refused;
    CHECK(std::string(e.what()).find("structured_outputs: ") == 0);
    return nullptr;
  }
  ++(job->state() == State::kReady ? counts.ready : counts.failed);
  return job->state() == State::kReady ? job : nullptr;
}

void walk_once(const GrammarJob& job, Rng& rng) {
  CHECK(test::walk(job.grammar(), rng, 30).num_refused == 0);
}

TEST_CASE("random schemas: what compiles yields valid values only") {
  Compiler compiler;
  Rng rng(1);
  Counts counts;
  int checked = 0;
  for (int i = 0; i < 4000; ++i) {
    json schema = random_schema(rng, 3);
    if (schema.is_object() && rng() % 2 == 0) {
      schema["$defs"] = {{"x", random_schema(rng, 1)}, {"y", random_schema(rng, 2)}};
    }
    const std::string text = schema.dump();
    CAPTURE(text);
    const auto job =
        try_compile(compiler, {.kind = StructureKind::kJsonSchema, .text = text}, counts);
    if (!job) continue;
    const test::Walk walk = test::walk(job->grammar(), rng, 120);
    CAPTURE(walk.text);
    CHECK(walk.num_refused == 0);
    if (!walk.ended) continue;
    const json value = json::parse(walk.text, nullptr, false);
    if (value.is_discarded()) continue;  // a byte that is no UTF-8, a large exponent
    ++checked;
    CHECK(test::JsonValidator(schema).is_valid(value));
  }
  CHECK(counts.ready > 500);
  CHECK(counts.refused > 500);
  CHECK(checked > 300);
}

TEST_CASE("mutated texts of schemas") {
  Compiler compiler;
  Rng rng(2);
  Counts counts;
  for (int i = 0; i < 3000; ++i) {
    const std::string text = mutated(random_schema(rng, 3).dump(), rng);
    const auto job =
        try_compile(compiler, {.kind = StructureKind::kJsonSchema, .text = text}, counts);
    if (job && i % 4 == 0) walk_once(*job, rng);
  }
  CHECK(counts.refused > 1000);
}

std::string random_regex(Rng& rng, int depth) {
  std::string result;
  for (size_t n = rng() % 4 + 1; n > 0; --n) {
    switch (rng() % (depth > 0 ? 7 : 4)) {
      case 0:
        result += pick(rng, {"a", "b", ".", "é", "\\d", "\\W", "\\S", "\\.", "\\u{1F600}"});
        break;
      case 1: result += pick(rng, {"[a-c]", "[^é]", "[\\d-]", "[^\\s\"]", "[а-яё]"}); break;
      case 2:
        result += pick(rng, {"a*", "b+?", "[ab]{2,4}", "x{0}", ".{0,90}", "c{3}", "(?:)"});
        break;
      case 3: result += pick(rng, {"^", "$", "\\b", "(?=a)", "{", "|", "\\1", "a{70,}"}); break;
      default:
        result += '(';
        result += random_regex(rng, depth - 1);
        result += pick(rng, {")", ")*", ")?", "){1,3}", ")|"});
    }
  }
  if (rng() % 4 == 0) result.append("|").append(random_regex(rng, 0));
  return result;
}

TEST_CASE("random regular expressions, alone and as patterns") {
  Compiler compiler;
  Rng rng(3);
  Counts counts;
  for (int i = 0; i < 3000; ++i) {
    const std::string regex = mutated(random_regex(rng, 2), rng);
    CAPTURE(regex);
    StructuredOutputs what{.kind = StructureKind::kRegex, .text = regex};
    if (i % 3 == 0) {
      const json schema = {{"type", "string"}, {"pattern", regex}};
      what = {.kind = StructureKind::kJsonSchema,
              .text = schema.dump(-1, ' ', false, json::error_handler_t::replace)};
    }
    const auto job = try_compile(compiler, what, counts);
    if (job) walk_once(*job, rng);
  }
  CHECK(counts.ready > 500);
  CHECK(counts.refused > 500);
}

TEST_CASE("mutated grammars and structural tags") {
  Compiler compiler;
  Rng rng(4);
  Counts counts;
  const std::string grammar =
      "root ::= term (\"+\" term)* | Regex(\"a+\") # sum\nterm ::= [0-9]{1,3} | \"(\" root \")\" | "
      "\"\\x41\" | \"é\"?\nmore[max_chars=3] ::= [^a-c]* | term\n";
  const std::string tag =
      R"({"type":"structural_tag","format":{"type":"triggered_tags","triggers":["<f"],"tags":[{"begin":"<f>","content":{"type":"or","elements":[{"type":"json_schema","json_schema":{"type":"integer"}},{"type":"regex","pattern":"a|b"}]},"end":"</f>"}]}})";
  for (int i = 0; i < 1500; ++i) {
    StructuredOutputs what{.kind = StructureKind::kGrammar, .text = mutated(grammar, rng)};
    if (i % 3 == 0) what = {.kind = StructureKind::kStructuralTag, .text = mutated(tag, rng)};
    CAPTURE(what.text);
    const auto job = try_compile(compiler, what, counts);
    if (!job) continue;
    const test::Walk walk = test::walk(job->grammar(), rng, 30);
    CHECK(walk.num_refused == 0);
  }
  CHECK(counts.ready > 200);
  CHECK(counts.refused > 200);
}

TEST_CASE("random bytes as anything") {
  Compiler compiler;
  Rng rng(5);
  Counts counts;
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    for (size_t n = rng() % 12; n > 0; --n)
      text += static_cast<char>(rng() % 3 == 0 ? rng() : 32 + rng() % 95);
    StructuredOutputs what{.kind = static_cast<StructureKind>(i % 6), .text = text};
    if (what.kind == StructureKind::kChoice) what.choices = {text, "x"};
    what.any_whitespace = rng() % 2 == 0;
    what.additional_properties = rng() % 2 == 0;
    try_compile(compiler, what, counts);
  }
  CHECK(counts.failed == 0);
}

}  // namespace
}  // namespace octavo
