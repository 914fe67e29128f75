// Makes grammars of structures, off the step thread. A structure is checked and parsed by the
// thread that submits it, so that what is wrong with it is told there; it is compiled for the
// vocabulary on the compiler's own threads, within limits of time and memory. Results are cached.
// Owned by the engine; every method may be called from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "grammar/grammar.h"
#include "octavo/structured_outputs.h"

namespace octavo {

struct GrammarLimits {
  std::chrono::milliseconds compile_time{10'000};
  int64_t text_bytes = 256 * 1024;           // of a schema, regex, grammar or all choices
  int64_t cache_bytes = int64_t{256} << 20;  // of all cached grammars
  int32_t num_threads = 2;
};

// A grammar that is being made. Shared by the requests that want the same structure.
class GrammarJob {
 public:
  enum class State : uint8_t { kCompiling, kReady, kFailed };
  virtual ~GrammarJob() = default;
  // kFailed also when the time is over.
  virtual State state() const = 0;
  virtual std::string error() const = 0;  // with kFailed
  // With kReady.
  virtual const Grammar& grammar() const = 0;
};

class GrammarCompiler {
 public:
  // `on_done` is called from the compiler's threads whenever a job is ready or has failed.
  GrammarCompiler(int64_t vocab_size, std::function<void()> on_done, GrammarLimits limits = {});
  ~GrammarCompiler();  // drops what waits and waits for what is being compiled

  // See Engine::set_vocabulary.
  void set_vocabulary(std::vector<std::string> token_bytes);
  bool has_vocabulary() const;
  // Whether a token has no text, so that it can only end a structure.
  bool is_special(int32_t token_id) const;

  // Throws InvalidArgument, whose message begins with structured_outputs and names what is wrong:
  // text that does not parse, a keyword that is not enforced, a limit, no vocabulary.
  std::shared_ptr<GrammarJob> submit(const StructuredOutputs& structure);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace octavo
