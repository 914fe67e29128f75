// Fills the masks of a step on threads of its own while the forward pass runs. Owned by the engine;
// the step thread calls it. The threads sleep when there is nothing to fill, and are started by the
// first step that has something.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "grammar/grammar.h"

namespace octavo {

class MaskFiller {
 public:
  struct Job {
    GrammarMatcher* matcher;
    std::span<uint32_t> mask;
    std::string error = {};  // after wait(): what fill_mask threw, or empty
  };

  explicit MaskFiller(int32_t num_threads);
  ~MaskFiller();

  // Begins to fill the jobs' masks. The jobs and their masks must stay where they are until wait(),
  // which must follow before the next start.
  void start(std::span<Job> jobs);
  // Helps with what nobody has begun, and returns when all are filled.
  void wait();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace octavo
