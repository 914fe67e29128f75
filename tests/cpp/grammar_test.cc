// The grammar layer through its interface: what is accepted, what masks say, and how grammars are
// made.
#include "grammar/grammar_compiler.h"

#include <doctest/doctest.h>

#include <random>
#include <regex>
#include <string>
#include <thread>

#include "octavo/error.h"

namespace octavo {
namespace {

using State = GrammarJob::State;
constexpr int32_t kVocab = 130, kEnd = 128;

// The ASCII characters, two ends without text, and some longer pieces in place of control codes.
std::vector<std::string> vocabulary() {
  std::vector<std::string> tokens;
  for (int32_t i = 0; i < 128; ++i) tokens.emplace_back(1, static_cast<char>(i));
  const std::vector<std::string> pieces = {"{\"", "\":", "\",\"", "abc", "true", "12", "\"}", "}}"};
  for (size_t i = 0; i < pieces.size(); ++i) tokens[i + 1] = pieces[i];
  tokens[0] = "";
  tokens.resize(kVocab);
  return tokens;
}

struct House {
  explicit House(GrammarLimits limits = {}) : compiler(kVocab, [this] { ++done; }, limits) {
    compiler.set_vocabulary(vocabulary());
  }

  const Grammar& grammar(const StructuredOutputs& structure) {
    jobs.push_back(compiler.submit(structure));
    while (jobs.back()->state() == State::kCompiling) std::this_thread::yield();
    REQUIRE_MESSAGE(jobs.back()->state() == State::kReady, jobs.back()->error());
    return jobs.back()->grammar();
  }

  // Whether the whole text, character by character, is of the structure.
  bool accepts(const StructuredOutputs& structure, const std::string& text) {
    const std::vector<int32_t> ends = {kEnd};
    const auto matcher = grammar(structure).new_matcher(ends);
    for (char c : text) {
      const bool piece = c >= 1 && c <= 8;
      if (piece || !matcher->accept(c)) return false;
    }
    return matcher->completed() && matcher->accept(kEnd) && matcher->terminated();
  }

  std::atomic<int> done{0};
  std::vector<std::shared_ptr<GrammarJob>> jobs;
  GrammarCompiler compiler;
};

StructuredOutputs schema(std::string text) {
  return {.kind = StructureKind::kJsonSchema, .text = std::move(text)};
}
StructuredOutputs regex(std::string text) {
  return {.kind = StructureKind::kRegex, .text = std::move(text)};
}

std::string error_of(House& house, const StructuredOutputs& structure) {
  try {
    house.compiler.submit(structure);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("schemas accept what is valid and nothing else") {
  House house;
  const auto object = schema(R"({"type": "object", "required": ["a"], "properties":
      {"a": {"type": "integer", "minimum": 1, "maximum": 20},
       "b": {"type": "array", "items": {"enum": ["x", 1, null]}, "maxItems": 2}},
      "additionalProperties": false})");
  for (const char* valid : {R"({"a": 1})", R"({"a": 20})", R"({"a": 7, "b": []})",
                            R"({"a": 7, "b": ["x", null]})", R"({ "a" :1})"}) {
    CHECK_MESSAGE(house.accepts(object, valid), valid);
  }
  for (const char* invalid :
       {R"({})", R"({"a": 0})", R"({"a": 21})", R"({"a": 1.5})", R"({"b": []})",
        R"({"a": 1, "c": 2})", R"({"a": 7, "b": ["y"]})", R"({"a": 7, "b": ["x", "x", "x"]})",
        R"([1])", R"({"a": 1)", R"({"a": 1}})"}) {
    CHECK_MESSAGE(!house.accepts(object, invalid), invalid);
  }
}

TEST_CASE("an object is any object, a choice is one of them, an expression matches as a whole") {
  House house;
  const StructuredOutputs any{.kind = StructureKind::kJsonObject};
  CHECK(house.accepts(any, R"({"k": [1, {"x": true}], "s": "\u00e4"})"));
  CHECK_FALSE(house.accepts(any, "[1]"));
  CHECK_FALSE(house.accepts(any, "\"text\""));
  const StructuredOutputs choice{
      .kind = StructureKind::kChoice,
      .choices = {"yes", "no \"x\"", "a\\b", "line\nbreak", "yesterday"}};
  for (const std::string& text : choice.choices) CHECK_MESSAGE(house.accepts(choice, text), text);
  for (const char* text : {"", "ye", "yesno", "no", "a\\\\b"})
    CHECK_FALSE(house.accepts(choice, text));
  CHECK(house.accepts(regex("^[ab]+-\\d{2}$"), "abba-42"));
  CHECK_FALSE(house.accepts(regex("[ab]+-\\d{2}"), "abba-421"));
  const StructuredOutputs grammar{.kind = StructureKind::kGrammar,
                                  .text = "root ::= \"(\" root \")\" | \"x\""};
  CHECK(house.accepts(grammar, "((x))"));
  CHECK_FALSE(house.accepts(grammar, "((x)"));
}

// The mask of each step against asking token by token, along random walks that end.
TEST_CASE("a mask has exactly the tokens that are accepted, and walks give what was asked for") {
  House house;
  const std::vector<int32_t> ends = {kEnd, kEnd + 1};
  const std::pair<const char*, std::regex> cases[] = {
      {"[a-c]{2,6}(12|true)?x*", std::regex("[a-c]{2,6}(12|true)?x*")},
      {"(abc|ab|\\{\")+!", std::regex("(abc|ab|\\{\")+!")},
      {"\\w+ [^a-z]\\.", std::regex("[A-Za-z0-9_]+ [^a-z]\\.")},
  };
  for (const auto& [text, expression] : cases) {
    CAPTURE(text);
    for (uint32_t seed = 0; seed < 20; ++seed) {
      std::mt19937 random(seed);
      auto matcher = house.grammar(regex(text)).new_matcher(ends);
      std::string output;
      for (int32_t step = 0; !matcher->terminated(); ++step) {
        std::vector<uint32_t> mask(static_cast<size_t>(mask_words(kVocab)), 0xdeadbeefu);
        matcher->fill_mask(mask);
        std::vector<int32_t> allowed;
        for (int32_t id = 0; id < static_cast<int32_t>(mask.size()) * 32; ++id) {
          const bool bit = mask[static_cast<size_t>(id) / 32] >> (id % 32) & 1;
          REQUIRE(bit == matcher->fork()->accept(id));
          if (bit) allowed.push_back(id);
        }
        REQUIRE_FALSE(allowed.empty());
        const bool may_end = allowed.back() >= kEnd;
        CHECK(may_end == matcher->completed());
        const int32_t id = step > 12 && may_end ? kEnd : allowed[random() % allowed.size()];
        REQUIRE(matcher->accept(id));
        output += vocabulary()[static_cast<size_t>(id)];
        if (step > 60) break;
      }
      if (matcher->terminated()) CHECK_MESSAGE(std::regex_match(output, expression), output);
    }
  }
}

TEST_CASE("without end tokens the mask of what is complete is empty") {
  House house;
  const auto matcher = house.grammar(regex("ab")).new_matcher({});
  CHECK(matcher->accept('a'));
  CHECK(matcher->accept('b'));
  CHECK(matcher->completed());
  std::vector<uint32_t> mask(static_cast<size_t>(mask_words(kVocab)), 1);
  matcher->fill_mask(mask);
  CHECK(mask == std::vector<uint32_t>(mask.size(), 0));
}

TEST_CASE("what is wrong or not enforced is refused at submission, and says what it is") {
  House house;
  const std::pair<StructuredOutputs, const char*> table[] = {
      {schema(R"({"type": )"), "structured_outputs"},
      {schema(R"({"type": "strin"})"), "type"},
      {schema(R"({"not": {"type": "string"}})"), "not"},
      {schema(R"({"type": "object", "if": {}, "then": {}})"), "if"},
      {schema(R"({"type": "array", "uniqueItems": true, "items": {"type": "integer"}})"),
       "uniqueItems"},
      {schema(R"({"$ref": "http://example.com/schema"})"), "$ref"},
      {schema(R"({"type": "string", "format": "no-such-format"})"), "format"},
      {schema(R"({"type": "string", "someKeyword": 1})"), "someKeyword"},
      {regex("a(b"), "structured_outputs"},
      {regex("(?=a)b"), "structured_outputs"},
      {regex("(a)\\1"), "structured_outputs"},
      {regex("a\\bc"), "structured_outputs"},
      {regex(std::string("a\0b", 3)), "structured_outputs"},
      {regex("\xff"), "structured_outputs"},
      {{.kind = StructureKind::kChoice}, "choice"},
      {{.kind = StructureKind::kGrammar, .text = "root ::= missing"}, "missing"},
      {{.kind = StructureKind::kGrammar, .text = "no grammar at all ("}, "structured_outputs"},
      {{.kind = StructureKind::kStructuralTag, .text = "{}"}, "structured_outputs"},
  };
  for (const auto& [structure, named] : table) {
    const std::string error = error_of(house, structure);
    CAPTURE(structure.text);
    CHECK_MESSAGE(error.starts_with("structured_outputs: "), error);
    CHECK_MESSAGE(error.find(named) != std::string::npos, error);
  }
  CHECK(error_of(house, schema(std::string(300'000, ' '))).find("bytes") != std::string::npos);
  CHECK(house.jobs.empty());
}

TEST_CASE("the same structure is made once, and threads may ask for it together") {
  House house;
  std::vector<std::shared_ptr<GrammarJob>> jobs(8);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < jobs.size(); ++i) {
    threads.emplace_back([&, i] {
      for (int32_t k = 0; k < 20; ++k) {
        jobs[i] = house.compiler.submit(regex("[a-z]{" + std::to_string(k + 1) + "}"));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& job : jobs) {
    while (job->state() == State::kCompiling) std::this_thread::yield();
    CHECK(job->state() == State::kReady);
    CHECK(job == jobs.front());
  }
  CHECK(house.compiler.is_special(kEnd));
  CHECK_FALSE(house.compiler.is_special('a'));
}

// Mutations of valid structures: refused, or compiled; nothing else.
TEST_CASE("mutated structures are refused or made") {
  House house;
  const std::vector<StructuredOutputs> seeds = {
      schema(
          R"({"type":"object","properties":{"a":{"type":"string","maxLength":3}},"required":["a"]})"),
      schema(
          R"({"anyOf":[{"type":"null"},{"type":"array","items":{"type":"number"},"minItems":1}]})"),
      schema(R"({"$defs":{"n":{"type":"integer"}},"$ref":"#/$defs/n"})"),
      regex(R"([a-z]{1,3}(\d+|x?)[^"]\.)"),
      regex(R"(^(a|b)*c{2}$)"),
      {.kind = StructureKind::kGrammar,
       .text = "root ::= a | \"x\" root\na ::= [a-z]+ (\"-\" [0-9])*\n"}};
  const std::string letters = "{}[]()\"\\:,|*+?^$.-0129azAZ#/ \n\t\x7f\xc3";
  int32_t refused = 0, made = 0;
  for (uint32_t seed = 0; seed < 1500; ++seed) {
    std::mt19937 random(seed);
    StructuredOutputs structure = seeds[random() % seeds.size()];
    for (uint32_t i = 1 + random() % 3; i > 0; --i) {
      const size_t at = random() % structure.text.size();
      const char letter = letters[random() % letters.size()];
      switch (random() % 3) {
        case 0: structure.text[at] = letter; break;
        case 1: structure.text.insert(at, 1, letter); break;
        default: structure.text.erase(at, 1 + random() % 4);
      }
      if (structure.text.empty()) structure.text = "{";
    }
    CAPTURE(structure.text);
    const std::string error = error_of(house, structure);
    if (!error.empty()) {
      CHECK(error.starts_with("structured_outputs: "));
      ++refused;
      continue;
    }
    const auto job = house.compiler.submit(structure);
    while (job->state() == State::kCompiling) std::this_thread::yield();
    if (job->state() == State::kReady) job->grammar().new_matcher({});
    ++made;
  }
  CHECK(refused > 300);
  CHECK(made > 100);
}

}  // namespace
}  // namespace octavo
