#include "grammar/grammar_compiler.h"

#include <list>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "grammar/compile_pool.h"
#include "grammar/structure_parser.h"
#include "grammar/xgrammar_grammar.h"
#include "octavo/error.h"

namespace octavo {
namespace {

// The value of a structure as one string.
std::string key_of(const StructuredOutputs& structure) {
  std::string key = {static_cast<char>(structure.kind), structure.any_whitespace ? 'w' : '-',
                     structure.additional_properties ? 'a' : '-'};
  key += structure.text;
  for (const std::string& choice : structure.choices) {
    key += std::to_string(choice.size()) + ':' + choice;
  }
  return key;
}

void check_size(const StructuredOutputs& structure, const GrammarLimits& limits) {
  size_t bytes = structure.text.size();
  for (const std::string& choice : structure.choices) bytes += choice.size();
  if (bytes > static_cast<size_t>(limits.text_bytes)) {
    throw InvalidArgument(str_cat("structured_outputs: the text has ", bytes, " bytes, at most ",
                                  limits.text_bytes, " are possible"));
  }
}

}  // namespace

struct GrammarCompiler::Impl {
  struct Entry {
    std::string key;
    std::shared_ptr<GrammarJob> job;
    int64_t bytes;
  };
  using Entries = std::list<Entry>;  // the one that was used last comes first

  Impl(int64_t vocabulary_size, std::function<void()> done, GrammarLimits the_limits)
      : vocab_size(vocabulary_size),
        on_done(std::move(done)),
        limits(the_limits),
        pool(limits.num_threads,
             [this](const GrammarJob& job, bool begun) { finish(job, begun); }) {}

  std::shared_ptr<GrammarJob> find(const std::string& key);
  void finish(const GrammarJob& job, bool begun);
  void drop(Entries::iterator entry);
  void shrink();

  const int64_t vocab_size;
  const std::function<void()> on_done;
  const GrammarLimits limits;
  mutable std::mutex mutex;
  std::shared_ptr<const XgrammarVocabulary> vocabulary;
  std::vector<bool> has_text;  // [vocabulary]
  Entries entries;
  std::unordered_map<std::string_view, Entries::iterator> by_key;  // views of the entries' keys
  std::unordered_map<const GrammarJob*, Entries::iterator> by_job;
  int64_t bytes = 0;  // of entries
  CompilePool pool;   // last: its threads use the rest
};

std::shared_ptr<GrammarJob> GrammarCompiler::Impl::find(const std::string& key) {
  const auto found = by_key.find(key);
  if (found == by_key.end()) return nullptr;
  entries.splice(entries.begin(), entries, found->second);
  return found->second->job;
}

void GrammarCompiler::Impl::drop(Entries::iterator entry) {
  bytes -= entry->bytes;
  by_key.erase(entry->key);
  by_job.erase(entry->job.get());
  entries.erase(entry);
}

// Drops what was used longest ago. What is still being compiled stays: it is shared.
void GrammarCompiler::Impl::shrink() {
  for (auto next = entries.end(); next != entries.begin() && bytes > limits.cache_bytes;) {
    const auto entry = --next;
    if (entry->job->state() == GrammarJob::State::kCompiling) continue;
    ++next;
    drop(entry);
  }
}

// A failure stays too, so that a structure that takes too long is tried once; but not one for want
// of a thread.
void GrammarCompiler::Impl::finish(const GrammarJob& job, bool begun) {
  {
    std::lock_guard lock(mutex);
    const auto found = by_job.find(&job);
    if (found != by_job.end()) {
      if (job.state() == GrammarJob::State::kReady) {
        found->second->bytes += job.grammar().memory_bytes();
        bytes += job.grammar().memory_bytes();
      } else if (!begun) {
        drop(found->second);
      }
    }
    shrink();
  }
  on_done();
}

GrammarCompiler::GrammarCompiler(int64_t vocab_size, std::function<void()> on_done,
                                 GrammarLimits limits)
    : impl_(std::make_unique<Impl>(vocab_size, std::move(on_done), limits)) {}

GrammarCompiler::~GrammarCompiler() = default;

void GrammarCompiler::set_vocabulary(std::vector<std::string> token_bytes) {
  if (static_cast<int64_t>(token_bytes.size()) > impl_->vocab_size) {
    throw InvalidArgument(str_cat("set_vocabulary: ", token_bytes.size(), " tokens, the model has ",
                                  impl_->vocab_size));
  }
  if (has_vocabulary()) throw InvalidArgument("set_vocabulary: the engine has a vocabulary");
  auto vocabulary = std::make_shared<const XgrammarVocabulary>(token_bytes, impl_->vocab_size);
  std::lock_guard lock(impl_->mutex);
  if (impl_->vocabulary) throw InvalidArgument("set_vocabulary: the engine has a vocabulary");
  impl_->vocabulary = std::move(vocabulary);
  impl_->has_text.assign(static_cast<size_t>(impl_->vocab_size), false);
  for (size_t id = 0; id < token_bytes.size(); ++id) {
    impl_->has_text[id] = !token_bytes[id].empty();
  }
}

bool GrammarCompiler::has_vocabulary() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->vocabulary != nullptr;
}

bool GrammarCompiler::is_special(int32_t token_id) const {
  std::lock_guard lock(impl_->mutex);
  return token_id < 0 || static_cast<size_t>(token_id) >= impl_->has_text.size() ||
         !impl_->has_text[static_cast<size_t>(token_id)];
}

std::shared_ptr<GrammarJob> GrammarCompiler::submit(const StructuredOutputs& structure) {
  check_size(structure, impl_->limits);
  std::string key = key_of(structure);
  std::shared_ptr<const XgrammarVocabulary> vocabulary;
  {
    std::lock_guard lock(impl_->mutex);
    vocabulary = impl_->vocabulary;
    if (auto job = impl_->find(key)) return job;
  }
  if (!vocabulary) {
    throw InvalidArgument(
        "structured_outputs: the engine has no vocabulary; set_vocabulary comes first");
  }
  const xgrammar::Grammar grammar = parse_structure(structure, vocabulary->tokenizer_info());
  std::lock_guard lock(impl_->mutex);
  if (auto job = impl_->find(key)) return job;  // another thread was faster
  bool taken = false;
  auto job = impl_->pool.submit([vocabulary, grammar] { return vocabulary->compile(grammar); },
                                impl_->limits.compile_time, &taken);
  if (!taken) return job;
  // 1024: what the library keeps of a parsed structure, and the entry itself.
  const auto bytes = static_cast<int64_t>(2 * key.size()) + 1024;
  impl_->entries.push_front({std::move(key), job, bytes});
  const auto entry = impl_->entries.begin();
  impl_->by_key.emplace(entry->key, entry);
  impl_->by_job.emplace(job.get(), entry);
  impl_->bytes += bytes;
  impl_->shrink();
  return job;
}

}  // namespace octavo
