// JSON schemas as grammars: valid texts of the grammar's form are accepted, invalid ones never;
// texts that follow the masks are valid by an independent validator; what is not enforced is an
// error.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <regex>
#include <string>
#include <vector>

#include "grammar_help.h"
#include "json_validator.h"
#include "octavo/error.h"

namespace octavo {
namespace {

using nlohmann::json;
using test::accepts;
using test::Compiler;
using test::JsonValidator;
using State = GrammarJob::State;

StructuredOutputs schema_of(const std::string& text) {
  return {.kind = StructureKind::kJsonSchema, .text = text};
}

struct Case {
  const char* schema;
  std::vector<const char*> valid;
  std::vector<const char*> invalid;
};

// Texts in the order of the schema's properties: another order is not of the grammar's form.
const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"true", {"1", "[null, {\"a\": []}]", "\"x\""}, {"", "nul", "[1,]", "'a'"}},
      {"{}", {"-0.5e3", "{}", "\"\\u00e9\\n\""}, {"01", "\"\n\"", "+1"}},
      {R"({"type":"null"})", {"null"}, {"0", "\"null\""}},
      {R"({"type":["integer","null"]})", {"12", "null"}, {"1.5", "true"}},
      {R"({"type":["number","integer","string"],"minimum":3})",
       {"3", "3.5", "\"a\""},
       {"2", "null"}},
      {R"({"type":"integer","minimum":-3,"exclusiveMaximum":12})",
       {"-3", "0", "11"},
       {"-4", "12", "1.5"}},
      {R"({"type":"integer","minimum":0.5,"maximum":2.5})", {"1", "2"}, {"0", "3"}},
      {R"({"type":"integer","exclusiveMinimum":-1.5})", {"-1", "0", "99999999999"}, {"-2"}},
      {R"({"type":"integer","maximum":18446744073709551615})",
       {"9223372036854775807", "-5"},
       {"1.5"}},
      {R"({"type":"integer","multipleOf":7})", {"0", "7", "-14", "700"}, {"1", "8", "-1"}},
      {R"({"type":"integer","multipleOf":5,"minimum":1,"maximum":20})",
       {"5", "20"},
       {"0", "7", "25"}},
      {R"({"type":"number","multipleOf":2})", {"4"}, {"3", "2.5"}},
      {R"({"type":"integer","format":"int32"})", {"2147483647", "-2147483648"}, {"2147483648"}},
      {R"({"type":"number","minimum":0,"maximum":1})",
       {"0", "0.25", "1", "1.0"},
       {"-0.1", "1.01", "1e1"}},
      {R"({"type":"number","exclusiveMinimum":-2.5,"exclusiveMaximum":0.125})",
       {"-2.4", "0", "0.12"},
       {"-2.5", "0.125", "0.13", "-3"}},
      {R"({"minLength":2})", {"\"ab\"", "\"é中\""}, {"\"a\"", "1", "\"a"}},
      {R"({"type":"string","minLength":1,"maxLength":3})",
       {"\"é\"", "\"abc\""},
       {"\"\"", "\"abcd\"", "\"\t\""}},
      {R"({"type":"string","maxLength":200})", {"\"\""}, {"\"\x01\""}},
      {R"({"type":"string","pattern":"^[A-Z]{2}\\d+$"})",
       {"\"AB1\""},
       {"\"A1\"", "\"AB1 \"", "\"\""}},
      {R"({"type":"string","pattern":"\\S+ [^a]"})",
       {"\"x b\""},
       {"\"x a\"", "\"\" b\"", "\"x \"\""}},
      {R"({"type":"string","pattern":"^(é)?[^\"]*$"})", {"\"é\"", "\"x\""}, {"\"\"\"", "\"\\\"\""}},
      {R"({"type":"string","format":"date"})",
       {"\"2024-02-29\""},
       {"\"2023-02-29\"", "\"2024-13-01\"", "\"1900-02-29\""}},
      {R"({"type":"string","format":"date-time"})",
       {"\"2024-01-31T23:59:59Z\"", "\"2024-01-31T00:00:00.5+01:30\""},
       {"\"2024-01-31\"", "\"2024-01-31T24:00:00Z\""}},
      {R"({"type":"string","format":"duration"})",
       {"\"P1DT2H\"", "\"P3W\""},
       {"\"P\"", "\"1D\"", "\"PT\""}},
      {R"({"type":"string","format":"email"})",
       {"\"a.b+c@x-y.org\""},
       {"\"a\"", "\"a@\"", "\".a@b\"", "\"a@-b\""}},
      {R"({"type":"string","format":"ipv4"})",
       {"\"0.10.255.249\""},
       {"\"256.1.1.1\"", "\"01.1.1.1\"", "\"1.1.1\""}},
      {R"({"type":"string","format":"ipv6"})",
       {"\"::\"", "\"::1\"", "\"2001:db8::ff\"", "\"1:2:3:4:5:6:7:8\""},
       {"\"1::2::3\"", "\"1:2:3\"", "\"1:2:3:4:5:6:7:8:9\"", "\":1\""}},
      {R"({"type":"string","format":"uuid"})",
       {"\"123e4567-e89b-12d3-a456-426614174000\""},
       {"\"123e4567\""}},
      {R"({"format":"uri"})",
       {"\"https://u@h.org:80/a/b?q=1#f\"", "\"mailto:a@b\""},
       {"\"//h\"", "\"a b\"", "1"}},
      {R"({"type":"string","format":"uri-reference"})", {"\"../a?b\"", "\"\""}, {"\"a b\""}},
      {R"({"type":"string","format":"json-pointer"})",
       {"\"\"", "\"/a/~0b\""},
       {"\"a\"", "\"/~2\"", "\"/\"\""}},
      {R"({"type":"string","format":"hostname"})", {"\"a-b.c\""}, {"\"-a\"", "\"a_b\""}},
      {R"({"const":{"a":[1,"x\ny"]}})", {"{\"a\":[1,\"x\\ny\"]}"}, {"{\"a\":[1]}"}},
      {R"({"enum":["a/b","ü\"","c",1,null],"type":["string","null"]})",
       {"\"a/b\"", "\"ü\\\"\"", "null"},
       {"1", "\"d\""}},
      {R"({"enum":[1,1.0,2]})", {"1", "2"}, {"3"}},
      {R"({"items":{"type":"boolean"},"minItems":1,"maxItems":2})",
       {"[true]", "[ false , true ]"},
       {"[]", "[true,true,true]", "{}"}},
      {R"({"type":"array","prefixItems":[{"type":"integer"},true],"items":false})",
       {"[]", "[1]", "[1, {}]"},
       {"[1,2,3]", "[\"\"]"}},
      {R"({"type":"array","prefixItems":[{"type":"integer"},{}],"items":{"type":"null"},"minItems":2})",
       {"[1,2]", "[1,2,null]"},
       {"[1]", "[1,2,3]"}},
      {R"({"type":"array","prefixItems":[{"const":1},{"const":2}],"maxItems":1})",
       {"[]", "[1]"},
       {"[1,2]"}},
      {R"({"type":"array","uniqueItems":true,"maxItems":1})", {"[]", "[0]"}, {"[0,0]"}},
      {R"({"type":"object"})", {"{}", "{\"a\": 1, \"b\": [2]}"}, {"[]", "{\"a\"}", "{a:1}"}},
      {R"({"properties":{"a":{"type":"integer"},"title":{"type":"string"}},"required":["a"]})",
       {"{\"a\":1}", "{ \"a\" : 1 , \"title\" : \"x\" }", "{\"a\":1,\"x\":[]}", "{\"a\":1,\"\":0}"},
       {"{}", "{\"a\":\"1\"}", "{\"a\":1,\"\\u0061\":\"x\"}", "{\"a\":1,\"a\":\"x\"}",
        "{\"title\":\"x\"}"}},
      {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"null"}},"additionalProperties":false})",
       {"{}", "{\"b\":null}", "{\"a\":1,\"b\":null}"},
       {"{\"c\":1}", "{\"a\":null}", "{\"a\":1,\"a\":2}"}},
      {R"({"type":"object","required":["z"],"additionalProperties":{"type":"integer"}})",
       {"{\"z\":1}", "{\"z\":1,\"y\":2}"},
       {"{}", "{\"y\":1}", "{\"z\":\"\"}", "{\"z\":1,\"y\":null}"}},
      {R"({"type":"object","properties":{"x":{"type":"object","properties":{"title":{"type":"string"}},"required":["title"]},"y":{"type":"object","properties":{"title":{"type":"integer"}},"required":["title"]}},"required":["x","y"]})",
       {"{\"x\":{\"title\":\"a\"},\"y\":{\"title\":1}}"},
       {"{\"x\":{\"title\":\"a\"},\"y\":{\"title\":\"b\"}}",
        "{\"x\":{\"title\":1},\"y\":{\"title\":1}}"}},
      {R"({"type":"object","patternProperties":{"^[a-z]+$":{"type":"integer"}}})",
       {"{}", "{\"ab\":1,\"c\":2}"},
       {"{\"ab\":\"\"}"}},
      {R"({"type":"object","propertyNames":{"enum":["k","l"]},"additionalProperties":{"type":"boolean"}})",
       {"{}", "{\"l\":true}"},
       {"{\"m\":true}", "{\"k\":1}"}},
      {R"({"type":"object","propertyNames":{"maxLength":2},"minProperties":1})",
       {"{\"ab\":1}"},
       {"{}", "{\"abc\":1}"}},
      {R"({"type":"object","properties":{"a":{},"b":{},"c":{}},"additionalProperties":false,"minProperties":2,"maxProperties":2})",
       {"{\"a\":1,\"b\":2}", "{\"b\":1,\"c\":2}"},
       {"{\"a\":1}", "{}", "{\"a\":1,\"b\":2,\"c\":3}"}},
      {R"({"type":"object","maxProperties":1,"additionalProperties":{"type":"integer"}})",
       {"{}", "{\"a\":1}"},
       {"{\"a\":1,\"b\":2}"}},
      {R"({"anyOf":[{"type":"string","maxLength":2},{"type":"integer"}]})",
       {"\"ab\"", "5"},
       {"\"abc\"", "null"}},
      {R"({"type":["string","integer"],"anyOf":[{"type":"integer","minimum":5},{"enum":["x",7.5]}]})",
       {"5", "\"x\""},
       {"4", "7.5"}},
      {R"({"oneOf":[{"type":"integer"},{"type":"string"},{"enum":[null]}]})",
       {"1", "\"\"", "null"},
       {"true"}},
      {R"({"discriminator":{"propertyName":"k"},"oneOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/b"}],"$defs":{"a":{"type":"object","properties":{"k":{"const":"a"},"n":{"type":"integer"}},"required":["k","n"]},"b":{"type":"object","properties":{"k":{"const":"b"}},"required":["k"]}}})",
       {"{\"k\":\"a\",\"n\":1}", "{\"k\":\"b\"}"},
       {"{\"k\":\"a\"}", "{\"k\":\"c\"}"}},
      {R"({"oneOf":[{"properties":{"k":{"const":"a"},"n":{"type":"integer"}},"required":["k","n"]},{"properties":{"k":{"const":"b"}},"required":["k"]}]})",
       {"{\"k\":\"a\",\"n\":1}", "{\"k\":\"b\"}"},
       {"{\"k\":\"a\"}", "{\"k\":\"c\"}"}},
      {R"({"allOf":[{"$ref":"#/definitions/p"}],"title":"t","definitions":{"p":{"type":"integer"}}})",
       {"1"},
       {"\"1\""}},
      {R"({"allOf":[{"properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"a":{"minimum":3},"b":{"type":"null"}},"required":["b"]}],"type":"object"})",
       {"{\"a\":3,\"b\":null}"},
       {"{\"a\":2,\"b\":null}", "{\"a\":3}"}},
      {R"({"$ref":"#/$defs/n","minimum":5,"$defs":{"n":{"type":"integer","minimum":2,"maximum":9}}})",
       {"5", "9"},
       {"4", "10"}},
      {R"({"$ref":"#/$defs/a~1b%25","$defs":{"a/b%":{"items":{"$ref":"#/$defs/a~1b%25"}}}})",
       {"[]", "[[], [[]]]"},
       {"[1]"}},
      {R"({"type":"object","properties":{"next":{"anyOf":[{"type":"null"},{"$ref":"#"}]}},"required":["next"],"additionalProperties":false})",
       {"{\"next\":null}", "{\"next\":{\"next\":null}}"},
       {"{}", "{\"next\":{}}"}},
      {R"({"type":"array","items":{"anyOf":[{"$ref":"#/items/anyOf/1"},{"type":"integer"}]}})",
       {"[1]"},
       {"[\"\"]"}},
  };
  return all;
}

TEST_CASE("valid texts are accepted, invalid ones never, and the cases agree with the validator") {
  Compiler compiler;
  for (const Case& c : cases()) {
    CAPTURE(std::string(c.schema));
    const auto job = compiler.compile(schema_of(c.schema));
    REQUIRE_MESSAGE(job->state() == State::kReady, job->error());
    const JsonValidator validator(json::parse(c.schema));
    for (const char* text : c.valid) {
      CHECK_MESSAGE(accepts(job->grammar(), text), std::string(text));
      CHECK_MESSAGE(validator.is_valid(json::parse(text)), std::string(text));
    }
    for (const char* text : c.invalid)
      CHECK_MESSAGE(!accepts(job->grammar(), text), std::string(text));
  }
}

// Tokens of single bytes can make what is no UTF-8; a detokenizer puts U+FFFD there. And the parser
// takes no exponents beyond a double's.
std::string as_decoded(const std::string& text) {
  const std::string quoted = json(text).dump(-1, ' ', false, json::error_handler_t::replace);
  const std::regex exponent("([0-9][eE][+-]?)[0-9]+");
  return std::regex_replace(json::parse(quoted).get<std::string>(), exponent, "$011");
}

void check_walks(Compiler& compiler, const std::string& schema, std::mt19937& rng, int walks) {
  CAPTURE(schema);
  const auto job = compiler.compile(schema_of(schema));
  REQUIRE_MESSAGE(job->state() == State::kReady, job->error());
  const JsonValidator validator(json::parse(schema));
  for (int i = 0; i < walks; ++i) {
    const test::Walk walk = test::walk(job->grammar(), rng);
    CAPTURE(walk.text);
    CHECK(walk.num_refused == 0);
    CHECK(!walk.is_stuck);
    if (!walk.ended) continue;
    const json value = json::parse(as_decoded(walk.text), nullptr, false);
    CHECK(!value.is_discarded());
    CHECK_MESSAGE(validator.is_valid(value), walk.text);
  }
}

TEST_CASE("texts that follow the masks are valid") {
  Compiler compiler;
  std::mt19937 rng(20240229);
  for (const Case& c : cases()) check_walks(compiler, c.schema, rng, 12);
}

TEST_CASE("numbers within random bounds") {
  Compiler compiler;
  std::mt19937 rng(11);
  const auto number = [&](bool whole) {
    const double scale = std::pow(10, static_cast<int>(rng() % 7));
    const double value = (static_cast<double>(rng() % 20001) - 10000) / 10000 * scale;
    return whole ? json(static_cast<int64_t>(value)) : json(value);
  };
  for (int i = 0; i < 150; ++i) {
    const bool whole = i % 2 == 0;
    json schema = {{"type", whole ? "integer" : "number"}};
    json low = number(whole), high = number(whole);
    if (low > high) std::swap(low, high);
    if (low.get<double>() + 1 >= high.get<double>()) continue;
    if (rng() % 4 != 0) schema[rng() % 2 == 0 ? "minimum" : "exclusiveMinimum"] = low;
    if (rng() % 4 != 0) schema[rng() % 2 == 0 ? "maximum" : "exclusiveMaximum"] = high;
    check_walks(compiler, schema.dump(), rng, 10);
    const auto job = compiler.compile(schema_of(schema.dump()));
    for (const json& bound : {low, high}) {
      for (const double offset : {-1.0, -1e-4, 0.0, 1e-4, 1.0}) {
        if (whole && offset != std::floor(offset)) continue;
        const double value = bound.get<double>() + offset;
        const std::string text =
            whole ? std::to_string(static_cast<int64_t>(value)) : json(value).dump();
        const bool valid = JsonValidator(schema).is_valid(json::parse(text));
        CHECK_MESSAGE((valid || !accepts(job->grammar(), text)), schema.dump(), " ", text);
        if (whole) CHECK_MESSAGE(accepts(job->grammar(), text) == valid, schema.dump(), " ", text);
      }
    }
  }
}

TEST_CASE("what is not enforced is an error that names it and where it is") {
  struct Refusal {
    const char* schema;
    std::vector<const char*> words;
  };
  const std::vector<Refusal> all = {
      {R"({"type":"array","uniqueItems":true})", {"#:", "\"uniqueItems\""}},
      {R"({"properties":{"a/b":{"contains":{}}}})", {"#/properties/a~1b:", "\"contains\""}},
      {R"({"not":{}})", {"\"not\""}},
      {R"({"if":{},"then":{}})", {"\"if\""}},
      {R"({"$defs":{"x":{"minContains":1}},"items":{"$ref":"#/$defs/x"}})",
       {"#/$defs/x:", "\"minContains\""}},
      {R"({"dependentRequired":{}})", {"\"dependentRequired\""}},
      {R"({"dependentSchemas":{}})", {"\"dependentSchemas\""}},
      {R"({"type":"string","nullable":true})", {"\"nullable\""}},
      {R"({"minmum":3})", {"\"minmum\""}},
      {R"({"additionalItems":false})", {"\"additionalItems\""}},
      {R"({"$anchor":"a"})", {"\"$anchor\""}},
      {R"({"items":{"$id":"x"}})", {"#/items:", "\"$id\""}},
      {R"({"$dynamicRef":"#a"})", {"\"$dynamicRef\""}},
      {R"({"type":"string","format":"iban"})", {"#/format:", "iban"}},
      {R"_({"type":"string","pattern":"(?=a)"})_", {"#/pattern:", "lookahead"}},
      {R"({"type":"string","pattern":"^\"$"})", {"#/pattern:", "without escapes"}},
      {R"({"type":"string","pattern":"a","minLength":2})", {"together"}},
      {R"({"type":"string","format":"date","pattern":"a"})", {"together"}},
      {R"({"type":"number","multipleOf":0.01})", {"#/multipleOf:"}},
      {R"({"type":"integer","multipleOf":3,"minimum":1})", {"multipleOf"}},
      {R"({"type":"integer","multipleOf":3,"minimum":1,"maximum":100000})", {"multipleOf"}},
      {R"({"type":"integer","multipleOf":0})", {"#/multipleOf:"}},
      {R"({"type":"integer","minimum":5,"maximum":4})", {"bounds"}},
      {R"({"type":"integer","minimum":"5"})", {"#/minimum:", "a number"}},
      {R"({"type":"integer","exclusiveMinimum":true})", {"#/exclusiveMinimum:"}},
      {R"({"type":"string","maxLength":-1})", {"#/maxLength:"}},
      {R"({"type":"string","minLength":3,"maxLength":2})", {"minLength"}},
      {R"({"type":"array","minItems":3,"maxItems":2})", {"minItems"}},
      {R"({"type":"array","prefixItems":[{}],"items":false,"minItems":2})", {"minItems"}},
      {R"({"type":"array","items":[{}]})", {"#/items:", "prefixItems"}},
      {R"({"type":"any"})", {"#/type:"}},
      {R"({"type":[]})", {"#/type:"}},
      {R"({"enum":[]})", {"#/enum:"}},
      {R"({"enum":["a"],"type":"integer"})", {"#/enum:"}},
      {R"({"enum":["a"],"maxLength":3})", {"\"maxLength\""}},
      {R"({"const":1,"enum":[2]})", {"no value"}},
      {R"({"anyOf":[]})", {"#/anyOf:"}},
      {R"({"anyOf":[false]})", {"#/anyOf:"}},
      {"false", {"no value"}},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", {"#/oneOf:", "anyOf"}},
      {R"({"oneOf":[{"type":"object","properties":{"a":{"const":1}}},{"type":"object","properties":{"a":{"const":2}}}]})",
       {"#/oneOf:"}},
      {R"({"oneOf":[{"enum":[1]},{"enum":[1.0]}]})", {"#/oneOf:"}},
      {R"({"oneOf":[{"minimum":2},{"minItems":1}]})", {"#/oneOf:"}},  // 5 is valid for both
      {R"({"anyOf":[{}],"oneOf":[{}],"allOf":[{"anyOf":[{"type":"null"}]}]})", {"anyOf"}},
      {R"({"allOf":[{"pattern":"a"},{"pattern":"b"}]})", {"\"pattern\"", "allOf"}},
      {R"({"allOf":[{"additionalProperties":false,"properties":{"a":{}}},{"properties":{"b":{}}}]})",
       {"allOf"}},
      {R"({"additionalProperties":false,"allOf":[{"patternProperties":{"^a":{}}}]})", {"allOf"}},
      {R"({"allOf":[{"type":"string"},{"type":"integer"}]})", {"no type"}},
      {R"({"allOf":[{"properties":{"a":{"anyOf":[true,true]},"b":{"anyOf":[true]}}}],"anyOf":[{"$ref":"#","properties":{"a":{"maxItems":1},"b":{"maxItems":2}}}],"required":["a"]})",
       {"json"}},
      {R"({"$ref":"#"})", {"itself"}},
      {R"({"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"$ref":"#/$defs/b"}]},"b":{"$ref":"#/$defs/a"}}})",
       {"itself"}},
      {R"({"allOf":[{"$ref":"#"}]})", {"itself"}},
      {R"({"type":"object","anyOf":[{"$ref":"#"}]})", {"nested too deep"}},
      {R"({"$ref":"#/$defs/x"})", {"#/$ref:", "nothing"}},
      {R"({"$ref":"other.json"})", {"not in this schema"}},
      {R"({"$ref":"#name"})", {"anchor"}},
      {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})", {"without end"}},
      {R"({"type":"object","properties":{"a\"b":{}}})", {"escapes"}},
      {R"({"type":"object","properties":{"a":false},"required":["a"]})", {"#/required:", "\"a\""}},
      {R"({"type":"object","required":["a"],"additionalProperties":false})", {"\"a\""}},
      {R"({"type":"object","minProperties":2})", {"#/minProperties:"}},
      {R"({"type":"object","properties":{"a":{}},"additionalProperties":false,"minProperties":2})",
       {"minProperties"}},
      {R"({"type":"object","properties":{"a":{}},"required":["a"],"maxProperties":0})",
       {"maxProperties"}},
      {R"({"patternProperties":{"a":{},"b":{}}})", {"#/patternProperties:"}},
      {R"({"patternProperties":{"a":{}},"properties":{"b":{}}})", {"patternProperties"}},
      {R"({"propertyNames":{"maxLength":3},"properties":{"b":{}}})", {"propertyNames"}},
      {R"({"propertyNames":{"type":"integer"}})", {"propertyNames"}},
      {R"({"a":1,"a":2})", {"json"}},
      {"[", {"json"}},
      {"3", {"a schema"}},
      {"", {"json"}},
      {"\"\xff\"", {"UTF-8"}},
  };
  Compiler compiler;
  for (const Refusal& refusal : all) {
    CAPTURE(std::string(refusal.schema));
    std::string error;
    try {
      compiler->submit(schema_of(refusal.schema));
    } catch (const InvalidArgument& e) {
      error = e.what();
    }
    CAPTURE(error);
    CHECK(error.find("structured_outputs: json") == 0);
    for (const char* word : refusal.words)
      CHECK_MESSAGE(error.find(word) != std::string::npos, word);
  }
  const std::string deep(100, '[');
  CHECK_THROWS_AS(compiler->submit(schema_of("{\"const\":" + deep + std::string(100, ']') + "}")),
                  InvalidArgument);
}

TEST_CASE("without additional properties, objects that name some hold no others") {
  Compiler compiler;
  StructuredOutputs closed = schema_of(
      R"({"type":"object","properties":{"a":{"type":"object","properties":{"b":{}}},"c":{"additionalProperties":true,"properties":{"d":{}}},"e":{"type":"object"}}})");
  closed.additional_properties = false;
  const auto job = compiler.compile(closed);
  REQUIRE(job->state() == State::kReady);
  CHECK(accepts(job->grammar(), R"({"a":{"b":1},"c":{"x":1},"e":{"y":1}})"));
  CHECK(!accepts(job->grammar(), R"({"z":1})"));
  CHECK(!accepts(job->grammar(), R"({"a":{"x":1}})"));
}

TEST_CASE("without white space of its own, JSON is written as Python writes it") {
  Compiler compiler;
  StructuredOutputs compact =
      schema_of(R"({"properties":{"a":{"items":{"maxLength":9}}},"required":["a"]})");
  compact.any_whitespace = false;
  const auto job = compiler.compile(compact);
  REQUIRE(job->state() == State::kReady);
  CHECK(accepts(job->grammar(), R"({"a": ["x", "y"]})"));
  CHECK(!accepts(job->grammar(), R"({"a":["x"]})"));
  CHECK(!accepts(job->grammar(), R"({"a":  ["x"]})"));
  CHECK(!accepts(job->grammar(), R"({ "a": []})"));
  const auto object = compiler.compile({.kind = StructureKind::kJsonObject});
  CHECK(accepts(object->grammar(), "{\n  \"a\": {\t}\n}"));
  CHECK(!accepts(object->grammar(), "[]"));
  CHECK(!accepts(object->grammar(), "{" + std::string(1000, ' ') + "}"));
}

}  // namespace
}  // namespace octavo
