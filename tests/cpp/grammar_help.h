// Grammars for the tests: a small vocabulary, texts accepted or not, and random texts that follow
// the masks.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "grammar/grammar_compiler.h"

namespace octavo::test {

// Every byte but NUL, which stands for a special token, some words, texts that look like end
// tokens, and the end token.
class Vocabulary {
 public:
  Vocabulary() {
    tokens_.emplace_back();
    for (int byte = 1; byte < 256; ++byte) tokens_.emplace_back(1, static_cast<char>(byte));
    for (const char* word :
         {"{\"", "\":",  "\", \"", "\"}",  "true",       "null", "12", "0.5",  "  ",
          ".\n", "é",    "éa",     "яб",   "中文",       "abc",  "aa", " \\>", "]}",
          "}]",  "\", ", ",\n",    "</s>", "<|im_end|>", "-1",   "e5"}) {
      tokens_.emplace_back(word);
    }
    tokens_.emplace_back();
  }
  const std::vector<std::string>& tokens() const { return tokens_; }
  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  int32_t end() const { return size() - 1; }
  int32_t id_of(const std::string& text) const {
    for (int32_t id = 0; id < size(); ++id) {
      if (tokens_[static_cast<size_t>(id)] == text) return id;
    }
    return -1;
  }

 private:
  std::vector<std::string> tokens_;
};

// A compiler with that vocabulary, and a way to wait for its jobs.
class Compiler {
 public:
  explicit Compiler(GrammarLimits limits = {.compile_time = std::chrono::minutes(10)})
      : compiler_(vocabulary.size(), [this] { notify(); }, limits) {
    compiler_.set_vocabulary(vocabulary.tokens());
  }
  GrammarCompiler& operator*() { return compiler_; }
  GrammarCompiler* operator->() { return &compiler_; }

  void wait(const GrammarJob& job) {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return job.state() != GrammarJob::State::kCompiling; });
  }
  std::shared_ptr<GrammarJob> compile(const StructuredOutputs& structure) {
    auto job = compiler_.submit(structure);
    wait(*job);
    return job;
  }
  // The compiler tells of a job after the job's state has changed.
  int wait_for_done(int count) {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return num_done_ >= count; });
    return num_done_;
  }

  const Vocabulary vocabulary;

 private:
  void notify() {
    std::lock_guard lock(mutex_);
    ++num_done_;
    done_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable done_;
  int num_done_ = 0;
  GrammarCompiler compiler_;
};

inline bool accepts(const Grammar& grammar, const std::string& text) {
  const int32_t end = Vocabulary().end();
  const auto matcher = grammar.new_matcher({&end, 1});
  for (const char c : text) {
    if (!matcher->accept(static_cast<unsigned char>(c))) return false;
  }
  return matcher->completed() && matcher->accept(end) && matcher->terminated();
}

inline bool is_allowed(const std::vector<uint32_t>& mask, int32_t id) {
  return (mask[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0;
}

struct Walk {
  std::string text;
  bool ended = false;     // by the end token
  int num_refused = 0;    // tokens of the masks that the matcher refused
  bool is_stuck = false;  // nothing was allowed
};

// Takes a random token of the mask, the end token and quotes gladly, until the end or `max_steps`.
inline Walk walk(const Grammar& grammar, std::mt19937& rng, int max_steps = 300) {
  const Vocabulary vocabulary;
  const int32_t end = vocabulary.end();
  const auto matcher = grammar.new_matcher({&end, 1});
  Walk result;
  std::vector<uint32_t> mask(static_cast<size_t>(mask_words(vocabulary.size())));
  for (int step = 0; step < max_steps && !result.ended; ++step) {
    matcher->fill_mask(mask);
    std::vector<int32_t> allowed;
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      if (is_allowed(mask, id)) allowed.push_back(id);
    }
    result.is_stuck = allowed.empty();
    if (result.is_stuck) break;
    int32_t token = allowed[rng() % allowed.size()];
    for (const int32_t wished : {end, int32_t{'"'}, int32_t{'}'}, int32_t{']'}}) {
      if (is_allowed(mask, wished) && rng() % 4 == 0) token = wished;
    }
    if (!matcher->accept(token)) {
      ++result.num_refused;
      break;
    }
    result.ended = matcher->terminated();
    result.text += vocabulary.tokens()[static_cast<size_t>(token)];
  }
  return result;
}

}  // namespace octavo::test
