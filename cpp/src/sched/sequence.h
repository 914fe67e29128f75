// One stream of tokens: a prompt and what was generated after it. It has computed and scheduled
// tokens and nothing else, so a prompt in chunks, a decode step and a recomputation are one thing.
// Owned by the engine; the scheduler holds pointers and writes all fields but the first group.
// Step thread.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cache/block_table.h"

namespace octavo {

// kNew: not added yet. Only waiting and running sequences are in a queue.
enum class SequenceState : uint8_t { kNew, kWaiting, kRunning, kFinished };

struct Sequence {
  Sequence(int64_t sequence_id, std::vector<int32_t> prompt, std::string salt = {})
      : id(sequence_id),
        tokens(std::move(prompt)),
        prompt_len(static_cast<int32_t>(tokens.size())),
        cache_salt(std::move(salt)) {}
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_remaining() const { return num_tokens() - num_computed; }

  // The engine's: between steps it appends the tokens that were sampled.
  int64_t id;
  std::vector<int32_t> tokens;  // the prompt, then what was generated
  int32_t prompt_len;
  std::string cache_salt;          // only sequences of the same salt share cached prefixes
  bool reads_prefix_cache = true;  // false: all its tokens are computed, and cached for others
  bool parked = false;  // its tokens have been computed, and it waits for the engine to append one

  // The scheduler's.
  SequenceState state = SequenceState::kNew;
  int32_t num_computed = 0;        // tokens whose keys and values are in the cache
  int32_t num_scheduled = 0;       // tokens that the step in flight computes
  int32_t num_cached_tokens = -1;  // prompt tokens found in the prefix cache; -1: not admitted yet
  int32_t num_preemptions = 0;
  BlockTable blocks;

 private:
  friend class Scheduler;
  friend class SequenceList;

  int32_t num_lost_ = 0;     // computed tokens that the last preemption threw away
  int32_t step_index_ = -1;  // in the step in flight
  Sequence* previous_ = nullptr;
  Sequence* next_ = nullptr;
};

}  // namespace octavo
