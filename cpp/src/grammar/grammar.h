// The interface to the grammar library: a structure that the output must have, made once for a
// vocabulary (Grammar), and the progress of one sample through it (GrammarMatcher). Owned by the
// engine. A Grammar may be used from any thread; a matcher by one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace octavo {

// What the next token may be: one bit an id, of word id / 32 the bit id % 32, set: it may come.
inline int64_t mask_words(int64_t vocab_size) { return (vocab_size + 31) / 32; }

class GrammarMatcher {
 public:
  virtual ~GrammarMatcher() = default;
  // Writes the mask of the next token, uint32 [mask_words]. Bits at and above vocab_size are 0.
  virtual void fill_mask(std::span<uint32_t> mask) = 0;
  // The sample goes on with `token`; false, and nothing changes, where the grammar has no such way.
  virtual bool accept(int32_t token) = 0;
  // The text so far is whole: an end token may follow.
  virtual bool completed() const = 0;
  // An end token was accepted: nothing may follow.
  virtual bool terminated() const = 0;
  // Another matcher that stands where this one does.
  virtual std::unique_ptr<GrammarMatcher> fork() const = 0;
};

class Grammar {
 public:
  virtual ~Grammar() = default;
  // `end_ids` are the tokens that may follow the whole text, and then end it.
  virtual std::unique_ptr<GrammarMatcher> new_matcher(std::span<const int32_t> end_ids) const = 0;
  virtual int64_t memory_bytes() const = 0;
};

}  // namespace octavo
