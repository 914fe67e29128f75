// What one step computes: the whole interface between the scheduler, which writes it, and the model
// runner, which reads it. The spans point into the sequences and are valid until the step has been
// completed. Step thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/copied_block.h"

namespace octavo {

struct ScheduledSequence {
  int64_t sequence_id;
  std::span<const int32_t> tokens;  // the ids to compute, at positions from num_computed on
  int32_t num_computed;             // tokens whose keys and values are in the cache
  int32_t prompt_len;
  std::span<const int32_t> block_table;  // exactly the blocks of num_computed + tokens.size()
  bool samples;  // computes the last known token: its logits choose the next
};

struct StepPlan {
  std::vector<ScheduledSequence> sequences;
  std::vector<CopiedBlock> copies;  // to run in this order, before the step's first store
  int32_t num_tokens = 0;           // of all sequences

  bool empty() const { return sequences.empty(); }
};

}  // namespace octavo
