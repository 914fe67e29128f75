// GrammarCompiler: the kinds of structures, the vocabulary, masks, the cache.
#include <doctest/doctest.h>

#include <atomic>
#include <functional>
#include <random>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "grammar_help.h"
#include "octavo/error.h"

namespace octavo {
namespace {

using test::accepts;
using test::Compiler;
using State = GrammarJob::State;

StructuredOutputs structure(StructureKind kind, std::string text) {
  return {.kind = kind, .text = std::move(text)};
}
StructuredOutputs regex(std::string text) {
  return structure(StructureKind::kRegex, std::move(text));
}
StructuredOutputs grammar(std::string text) {
  return structure(StructureKind::kGrammar, std::move(text));
}
StructuredOutputs choice(std::vector<std::string> choices) {
  return {.kind = StructureKind::kChoice, .choices = std::move(choices)};
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const InvalidArgument& e) {
    return e.what();
  }
  return "";
}

std::string refusal(Compiler& compiler, const StructuredOutputs& what) {
  const std::string error = error_of([&] { compiler->submit(what); });
  CHECK(error.find("structured_outputs: ") == 0);
  return error;
}

std::string text_of(std::string before, size_t count, char letter, const char* after = "") {
  return before.append(count, letter).append(after);
}

void check_texts(Compiler& compiler, const StructuredOutputs& what,
                 const std::vector<std::string>& good, const std::vector<std::string>& bad) {
  CAPTURE(what.text);
  const auto job = compiler.compile(what);
  REQUIRE_MESSAGE(job->state() == State::kReady, job->error());
  for (const std::string& text : good) CHECK_MESSAGE(accepts(job->grammar(), text), text);
  for (const std::string& text : bad) CHECK_MESSAGE(!accepts(job->grammar(), text), text);
}

TEST_CASE("choices are exact texts, whatever their characters") {
  Compiler compiler;
  const std::vector<std::string> texts = {"a\"b", "c\\d",  "line\nbreak", "tab\t", "été", "中文",
                                          "]",    "a\"b2", "\x7f\x01",    "\\x41", "${x}"};
  check_texts(compiler, choice(texts), texts, {"", "a", "a\"b3", "A", "ete", "line"});
  CHECK(refusal(compiler, choice({})).find("choice") != std::string::npos);
  CHECK(refusal(compiler, choice({"a", ""})).find("choice[1]") != std::string::npos);
  CHECK(refusal(compiler, choice({"\xff"})).find("UTF-8") != std::string::npos);
  CHECK(refusal(compiler, choice({std::string("a\0b", 3)})).find("NUL") != std::string::npos);
  CHECK(refusal(compiler, choice(std::vector<std::string>(20'000, "a"))).find("16384") !=
        std::string::npos);
}

TEST_CASE("a regular expression matches the whole text") {
  Compiler compiler;
  check_texts(compiler, regex("^(foo|ba[rz]{1,2})\\.?$"), {"foo", "foo.", "bar", "bazz."},
              {"", "fo", "xfoo", "foo..", "barrr"});
  check_texts(compiler, regex("a|b"), {"a", "b"}, {"ab", ""});
  check_texts(compiler, regex("(?:a|)b*?"), {"", "a", "bbb"}, {"aa"});
  check_texts(compiler, regex("(?<year>\\d{4})-(?P<m>\\d\\d)"), {"2024-01"},
              {"24-1", "２０２４-01"});
  check_texts(compiler, regex("[^\\s]+ \\S"), {"é x"}, {"é \u00a0", "a\u2003 x", "a b c"});
  check_texts(compiler, regex("."), {"a", "é", "\t"}, {"\n", "", "ab"});
  check_texts(compiler, regex("\\u00e9\\x41\\u{1F600}\\t\\-\\/"), {"éA😀\t-/"}, {"éA😀t-/"});
  check_texts(compiler, regex("\\uD83D\\uDE00[\\]\\-^]"), {"😀]", "😀-", "😀^"}, {"😀\\"});
  check_texts(compiler, regex("[a-]{2,}x}"), {"a-x}", "aaaax}"}, {"ax}"});
  check_texts(compiler, regex("x{0}y{2}"), {"yy"}, {"xyy", "y"});
  check_texts(compiler, regex("[а-яё]{2,300}!"), {"ёжик!"}, {"ё!", "ежик"});
  check_texts(compiler, regex("[ab]{70,300}"), {std::string(70, 'a'), std::string(300, 'b')},
              {std::string(69, 'a'), std::string(301, 'b')});
  check_texts(compiler, regex("(a{200}|b){2,3}"),
              {"bb", text_of("", 200, 'a', "b"), std::string(600, 'a')},
              {std::string(200, 'a'), text_of("", 201, 'a', "b")});
  check_texts(compiler, regex("x.{1000,}y"), {text_of("x", 1000, '.', "y")},
              {text_of("x", 999, '.', "y"), text_of("x", 1000, '.')});
  check_texts(compiler, regex("[ab]{300,301}"), {std::string(300, 'a'), std::string(301, 'b')},
              {std::string(299, 'a'), std::string(302, 'b')});
  check_texts(compiler, regex(std::string(5000, 'a')), {std::string(5000, 'a')},
              {std::string(4999, 'a')});
  check_texts(compiler, regex(""), {""}, {"a"});
}

TEST_CASE("where dialects read a shorthand differently, only what is of all of them matches") {
  Compiler compiler;
  check_texts(compiler, regex("\\d"), {"0", "9"}, {"٣", "९", "３", "a"});
  check_texts(compiler, regex("\\D"), {"a", "é", "中", "\n", "😀"}, {"0", "٣", "९", "３", "𝟗"});
  check_texts(compiler, regex("\\w"), {"a", "Z", "_", "0"}, {"é", "中", "٣", "-"});
  check_texts(compiler, regex("\\W"), {"-", " ", "\n", "«", "–", "…", "€", "😀"},
              {"a", "_", "0", "é", "中", "٣", "ª", "²", "\u0301"});
  check_texts(compiler, regex("\\s"), {" ", "\t", "\n", "\v", "\f", "\r"},
              {"\u00a0", "\u2003", "\ufeff", "\x1c", "a"});
  check_texts(compiler, regex("\\S"), {"a", "é", "-"},
              {" ", "\n", "\u00a0", "\u2003", "\ufeff", "\x1c", "\u0085"});
  check_texts(compiler, regex("."), {"a", "é", "\t", "\u0085"}, {"\n", "\r", "\u2028", "\u2029"});
  check_texts(compiler, regex("[^\\d]"), {"a", "é"}, {"0", "٣"});
  check_texts(compiler, regex("[^\\w]"), {"-", "😀"}, {"a", "é", "٣"});
  check_texts(compiler, regex("[^\\s]"), {"a", "é"}, {" ", "\u00a0"});
  check_texts(compiler, regex("[^\\D]"), {"0"}, {"٣", "a"});
  check_texts(compiler, regex("[^\\W]"), {"a"}, {"é", "-"});
  check_texts(compiler, regex("[^\\S]"), {" "}, {"\u00a0", "a"});
  check_texts(compiler, regex("[\\W_]"), {"_", "-"}, {"é", "a"});
  check_texts(compiler, regex("[\\d\\D]"), {"0", "a"}, {"٣"});
}

TEST_CASE(
    "what a regular expression's dialects disagree on, or a grammar cannot say, is an error") {
  Compiler compiler;
  for (const char* text : {"(?=a)b",
                           "(?!a)b",
                           "(?<=a)b",
                           "(?<!a)b",
                           "(a)\\1",
                           "(?<n>a)\\k<n>",
                           "\\bword",
                           "a\\B",
                           "\\p{L}",
                           "(?i)a",
                           "(?#x)",
                           "(?>a)",
                           "a++",
                           "a**",
                           "a{2}{3}",
                           "*a",
                           "{2}",
                           "a{",
                           "a{,3}",
                           "a{3,2}",
                           "a)",
                           "(a",
                           "[a",
                           "[]",
                           "[b-a]",
                           "[\\d-x]",
                           "[[:alpha:]]",
                           "[a&&b]",
                           "a^b",
                           "a$b",
                           "(a$)b",
                           "(^a)*",
                           "^*",
                           "a\\",
                           "\\a",
                           "\\z",
                           "\\Q",
                           "\\x4",
                           "\\u12",
                           "\\u{110000}",
                           "\\ud800",
                           "\\0",
                           "\\cA",
                           "(?<1",
                           "(?P=n)",
                           "a{999999}",
                           "([a-z]{1,100}){1,100}",
                           "(.{0,100}x){0,100}",
                           "(a{1,200}){1,200}",
                           "(?P>n)"}) {
    CAPTURE(text);
    CHECK(refusal(compiler, regex(text)).find("structured_outputs: regex: ") == 0);
  }
  std::string deep(200, '(');
  CHECK(refusal(compiler, regex(deep + "a" + std::string(200, ')'))).find("nested") !=
        std::string::npos);
  CHECK(refusal(compiler, regex("a\xc3")).find("UTF-8") != std::string::npos);
}

TEST_CASE("a grammar in GBNF's form") {
  Compiler compiler;
  check_texts(compiler,
              grammar("root ::= term (\"+\" term)*\nterm ::= [0-9]+ | \"(\" root \")\"\n"),
              {"1", "1+(2+3)"}, {"", "1+", "(1"});
  check_texts(compiler, grammar("root ::= root \"a\" | \"b\"\n"), {"b", "baa"}, {"ab", ""});
  check_texts(compiler, grammar("root ::= \"x\"{2,3} # {900}\n"), {"xx", "xxx"}, {"x", "xxxx"});
  for (const char* text : {"root ::= other", "start ::= \"a\"", "root ::= \"a", "root ::= (\"a\"",
                           "", "root ::= \"\\x41b\"", "root ::= \"a\"{1,129}", "root = \"a\""}) {
    CAPTURE(text);
    CHECK(refusal(compiler, grammar(text)).find("structured_outputs: grammar: ") == 0);
  }
  const auto ignored = compiler.compile(grammar("root ::= Regex(\"(?=a)b\")\n"));
  CHECK(ignored->state() == State::kFailed);  // the library would ignore the lookahead
}

TEST_CASE("a rule that never ends is an error that names it; recursion with an end is none") {
  Compiler compiler;
  struct Refusal {
    const char* text;
    const char* rule;
  };
  for (const Refusal& endless :
       std::vector<Refusal>{{"root ::= root\n", "root"},
                            {"root ::= root \"a\"\n", "root"},
                            {"root ::= \"a\" root\n", "root"},
                            {"root ::= \"a\" (root \",\")+\n", "root"},
                            {"root ::= \"a\" root{2,3}\n", "root"},
                            {"root ::= x \"a\"\nx ::= y | \"1\" y\ny ::= \"2\" x\n", "x"},
                            {"root ::= \"a\" | b\nb ::= \"x\" b\n", "b"},
                            {"root ::= b?\nb ::= \"x\" b\n", "b"},
                            {"root ::= \"a\" []\n", "root"},
                            {"root ::= TagDispatch((\"<a>\", b))\nb ::= \"x\" b\n", "b"}}) {
    CAPTURE(std::string(endless.text));
    const std::string error = refusal(compiler, grammar(endless.text));
    CAPTURE(error);
    const std::string name = endless.rule;
    CHECK(error.starts_with(std::string("structured_outputs: grammar: the rule \"")
                                .append(name)
                                .append("\" never ends")));
  }
  CHECK(refusal(compiler,
                structure(StructureKind::kStructuralTag,
                          R"({"format":{"type":"grammar","grammar":"root ::= \"a\" root"}})"))
            .find("never ends") != std::string::npos);
  check_texts(compiler, grammar("root ::= \"a\" root | \"b\"\n"), {"b", "aab"}, {"", "aa"});
  check_texts(compiler, grammar("root ::= x\nx ::= \"1\" y | \"\"\ny ::= \"2\" x\n"), {"", "1212"},
              {"1", "121"});
  check_texts(compiler, grammar("root ::= \"a\"\nunused ::= \"x\" unused\n"), {"a"}, {"x"});
  check_texts(compiler, grammar("root ::= root{0,2} \"a\"\n"), {"a", "aaa"}, {""});
}

TEST_CASE("left recursion: masks and matchers agree, and texts end") {
  Compiler compiler;
  struct Recursion {
    const char* grammar;
    const char* regex;
  };
  std::mt19937 rng(13);
  for (const Recursion& one : std::vector<Recursion>{
           {"root ::= root \"a\" | \"b\"\n", "ba*"},
           {"root ::= root | \"a\"\n", "a"},
           {"root ::= root root | \"a\"\n", "a+"},
           {"root ::= root root | \"a\" | \"\"\n", "a*"},
           {"root ::= x \"1\" | \"c\"\nx ::= root \"2\" | \"\"\n", "(c|1)(21)*"},
           {"root ::= e root \"a\" | \"b\"\ne ::= \"\" | \"e\"\n", "e*ba*"},
           {"root ::= root \"+\" term | term\nterm ::= term \"*\" [0-9] | [0-9]\n",
            "[0-9]([+*][0-9])*"}}) {
    CAPTURE(std::string(one.grammar));
    const auto job = compiler.compile(grammar(one.grammar));
    REQUIRE_MESSAGE(job->state() == State::kReady, job->error());
    int ended = 0;
    for (int i = 0; i < 30; ++i) {
      const test::Walk walk = test::walk(job->grammar(), rng, 40);
      CHECK(walk.num_refused == 0);
      CHECK(!walk.is_stuck);
      ended += walk.ended;
      if (walk.ended) CHECK_MESSAGE(std::regex_match(walk.text, std::regex(one.regex)), walk.text);
    }
    CHECK(ended > 5);
  }
}

TEST_CASE("structural tags, whose schemas are checked too") {
  Compiler compiler;
  const auto tag = [](const std::string& text) {
    return structure(StructureKind::kStructuralTag, text);
  };
  const std::string schema =
      R"({"type":"object","properties":{"x":{"type":"integer"}},"required":["x"]})";
  check_texts(compiler,
              tag(R"({"structures":[{"begin":"<f>","schema":)" + schema +
                  R"(,"end":"</f>"}],"triggers":["<f>"]})"),
              {"hi", "so <f>{\"x\": 1}</f> and"}, {"<f>{}</f>", "<f>{\"x\":\"1\"}</f>"});
  check_texts(compiler,
              tag(R"({"type":"structural_tag","format":{"type":"sequence","elements":[
                  {"type":"regex","pattern":"[ab]+"},{"type":"json_schema","json_schema":)" +
                  schema + "}]}}"),
              {"ab{\"x\":2}"}, {"{\"x\":2}", "ab{}"});
  CHECK(refusal(compiler, tag(R"({"format":{"type":"json_schema","json_schema":{"not":{}}}})"))
            .find("\"not\"") != std::string::npos);
  CHECK(refusal(compiler, tag(R"_({"format":{"type":"regex","pattern":"(?=a)"}})_"))
            .find("lookahead") != std::string::npos);
  CHECK(refusal(compiler, tag(R"({"format":{"type":"qwen_xml_parameter","json_schema":{}}})"))
            .find("qwen_xml_parameter") != std::string::npos);
  CHECK(
      refusal(compiler, tag(R"({"format":{"json_schema":{},"style":"glm_xml"}})")).find("style") !=
      std::string::npos);
  for (const char* text : {"", "[]", "{}", "{\"format\":1}", R"({"format":{"type":"none"}})"}) {
    CAPTURE(text);
    CHECK(refusal(compiler, tag(text)).find("structured_outputs: structural_tag: ") == 0);
  }
}

TEST_CASE("without a vocabulary there is an error, and it comes once") {
  GrammarCompiler compiler(4, [] {});
  CHECK(!compiler.has_vocabulary());
  CHECK(compiler.is_special(0));
  CHECK(error_of([&] { compiler.submit(regex("a")); }).find("vocabulary") != std::string::npos);
  CHECK(!error_of([&] { compiler.set_vocabulary({"a", "b", "c", "d", "e"}); }).empty());
  compiler.set_vocabulary({"a", "", "b"});
  CHECK(compiler.has_vocabulary());
  CHECK(!compiler.is_special(0));
  CHECK(compiler.is_special(1));
  CHECK(!compiler.is_special(2));
  CHECK(compiler.is_special(3));
  CHECK(compiler.is_special(-1));
  CHECK(compiler.is_special(4));
  CHECK(!error_of([&] { compiler.set_vocabulary({"a"}); }).empty());
}

TEST_CASE("masks hold what may follow, the end tokens when the text is whole, and no bit beyond") {
  Compiler compiler;
  const auto job = compiler.compile(regex("aab?"));
  REQUIRE(job->state() == State::kReady);
  const int32_t end = compiler.vocabulary.end(), aa = compiler.vocabulary.id_of("aa");
  const auto matcher = job->grammar().new_matcher({&end, 1});
  std::vector<uint32_t> mask(static_cast<size_t>(mask_words(compiler.vocabulary.size())), ~0u);
  const auto allowed = [&] {
    std::fill(mask.begin(), mask.end(), ~0u);
    matcher->fill_mask(mask);
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < static_cast<int32_t>(mask.size() * 32); ++id) {
      if (test::is_allowed(mask, id)) ids.push_back(id);
    }
    return ids;
  };
  CHECK(allowed() == std::vector<int32_t>{'a', aa});
  CHECK(!matcher->accept('b'));
  CHECK(!matcher->accept(end));
  CHECK(!matcher->accept(-1));
  CHECK(!matcher->accept(1 << 20));
  CHECK(!matcher->completed());
  CHECK(matcher->accept(aa));
  CHECK(matcher->completed());
  CHECK(allowed() == std::vector<int32_t>{'b', end});
  const auto forked = matcher->fork();
  CHECK(matcher->accept('b'));
  CHECK(allowed() == std::vector<int32_t>{end});
  CHECK(!matcher->terminated());
  CHECK(matcher->accept(end));
  CHECK(matcher->terminated());
  CHECK(allowed().empty());
  CHECK(!matcher->accept(end));
  CHECK(forked->completed());
  CHECK(!forked->terminated());
  CHECK(forked->accept(end));
}

TEST_CASE("without end tokens a text that is whole has an empty mask; texts are no end tokens") {
  Compiler compiler;
  const auto job = compiler.compile(choice({"</s>", "<|im_end|>!"}));
  REQUIRE(job->state() == State::kReady);
  const auto matcher = job->grammar().new_matcher({});
  std::vector<uint32_t> mask(static_cast<size_t>(mask_words(compiler.vocabulary.size())));
  matcher->fill_mask(mask);
  const int32_t token = compiler.vocabulary.id_of("</s>");
  CHECK(test::is_allowed(mask, token));
  CHECK(test::is_allowed(mask, compiler.vocabulary.id_of("<|im_end|>")));
  CHECK(matcher->accept(token));
  CHECK(matcher->completed());
  CHECK(!matcher->terminated());
  matcher->fill_mask(mask);
  CHECK(mask == std::vector<uint32_t>(mask.size(), 0));
}

TEST_CASE("a text is an end token where it is given as one") {
  Compiler compiler;
  const auto job = compiler.compile(regex("a*"));
  const int32_t ends[] = {'.', compiler.vocabulary.end()};
  const auto matcher = job->grammar().new_matcher(ends);
  CHECK(matcher->accept('a'));
  CHECK(matcher->accept('.'));
  CHECK(matcher->terminated());
}

TEST_CASE("equal structures share a job; what differs does not") {
  Compiler compiler;
  StructuredOutputs schema =
      structure(StructureKind::kJsonSchema, R"({"type":"object","properties":{}})");
  const auto first = compiler->submit(schema);
  CHECK(compiler->submit(schema) == first);
  compiler.wait(*first);
  CHECK(compiler->submit(schema) == first);
  schema.any_whitespace = false;
  CHECK(compiler->submit(schema) != first);
  schema.any_whitespace = true;
  schema.additional_properties = false;
  CHECK(compiler->submit(schema) != first);
  CHECK(compiler->submit(choice({"a", "b"})) != compiler->submit(choice({"ab"})));
  CHECK(compiler->submit(choice({"1:a"})) != compiler->submit(choice({"a"})));
  CHECK(compiler->submit(regex("x")) != compiler->submit(choice({"x"})));
}

TEST_CASE("the cache drops what was used longest ago, and a failure stays") {
  Compiler compiler({.compile_time = std::chrono::minutes(10), .cache_bytes = 20'000});
  const auto first = compiler.compile(regex("[a-c]{3}"));
  const auto failed = compiler.compile(grammar("root ::= Regex(\"(?=a)b\")\n"));
  CHECK(compiler->submit(regex("[a-c]{3}")) == first);
  CHECK(compiler->submit(grammar("root ::= Regex(\"(?=a)b\")\n")) == failed);
  for (int i = 0; i < 40; ++i) compiler.compile(regex("[a-c]{4}x{" + std::to_string(i) + "}"));
  CHECK(compiler->submit(regex("[a-c]{3}")) != first);
  CHECK(accepts(first->grammar(), "abc"));  // whoever holds it can use it
}

TEST_CASE("texts beyond the limit are errors") {
  Compiler compiler({.compile_time = std::chrono::minutes(10), .text_bytes = 100});
  CHECK(refusal(compiler, regex(std::string(101, 'a'))).find("100") != std::string::npos);
  CHECK(refusal(compiler, choice({std::string(60, 'a'), std::string(60, 'b')})).find("100") !=
        std::string::npos);
}

TEST_CASE("submissions from four threads") {
  Compiler compiler;
  std::vector<std::shared_ptr<GrammarJob>> jobs(80);
  {
    std::vector<std::jthread> threads;
    for (size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (size_t i = t; i < jobs.size(); i += 4) {
          jobs[i] = compiler->submit(regex("[a-z]{" + std::to_string(1 + i / 8) + "}"));
        }
      });
    }
  }
  for (size_t i = 0; i < jobs.size(); ++i) {
    CHECK(jobs[i] == jobs[i / 8 * 8]);
    compiler.wait(*jobs[i]);
    REQUIRE(jobs[i]->state() == State::kReady);
    CHECK(accepts(jobs[i]->grammar(), std::string(1 + i / 8, 'x')));
  }
  CHECK(compiler.wait_for_done(10) == 10);
}

TEST_CASE("a matcher works beside others of its grammar on other threads") {
  Compiler compiler;
  const auto job = compiler.compile(structure(StructureKind::kJsonObject, ""));
  REQUIRE(job->state() == State::kReady);
  std::atomic<int> refused{0};
  {
    std::vector<std::jthread> threads;
    for (unsigned t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937 rng(t);
        for (int i = 0; i < 5; ++i) refused += test::walk(job->grammar(), rng, 60).num_refused;
      });
    }
  }
  CHECK(refused == 0);
}

TEST_CASE("texts that follow the masks match the expression") {
  Compiler compiler;
  std::mt19937 rng(3);
  for (const char* text :
       {"[a-c]{2,6}(12|true)?x*", "(abc|ab|\\{\")+!", "\\w+ [%-~]\\.", "(a|b*c){2}-\\d"}) {
    CAPTURE(text);
    const auto job = compiler.compile(regex(text));
    REQUIRE_MESSAGE(job->state() == State::kReady, job->error());
    const std::regex expression(text);
    int ended = 0;
    for (int i = 0; i < 60; ++i) {
      const test::Walk walk = test::walk(job->grammar(), rng);
      CHECK(walk.num_refused == 0);
      CHECK(!walk.is_stuck);
      ended += walk.ended;
      if (walk.ended) CHECK_MESSAGE(std::regex_match(walk.text, expression), walk.text);
    }
    CHECK(ended > 10);
  }
}

TEST_CASE("every token of a mask is accepted, and no other") {
  Compiler compiler;
  const int32_t end = compiler.vocabulary.end();
  for (const char* text :
       {"(foo|[^a]{0,40}é)+[a-zé-ü]{0,300}\\.", "[ -~\\u{1000}-\\u{10FFFF}]{2,200}",
        "[а-яё]{0,100}x", "(\\d{1,3}\\.){3}\\d{1,3}", ".*a.{5}"}) {
    CAPTURE(text);
    const auto job = compiler.compile(regex(text));
    REQUIRE_MESSAGE(job->state() == State::kReady, job->error());
    std::mt19937 rng(7);
    std::vector<uint32_t> mask(static_cast<size_t>(mask_words(end + 1)));
    const auto matcher = job->grammar().new_matcher({&end, 1});
    for (int step = 0; step < 25 && !matcher->terminated(); ++step) {
      matcher->fill_mask(mask);
      std::vector<int32_t> allowed;
      int wrong = 0;
      for (int32_t id = 0; id <= end; ++id) {
        const bool in_mask = test::is_allowed(mask, id);
        wrong += matcher->fork()->accept(id) != in_mask;
        if (in_mask && id != end) allowed.push_back(id);
      }
      CHECK(wrong == 0);
      if (allowed.empty()) break;
      matcher->accept(allowed[rng() % allowed.size()]);
    }
  }
}

}  // namespace
}  // namespace octavo
