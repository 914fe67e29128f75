// Between Python's objects and the engine's plain values.
#include <nanobind/stl/vector.h>

#include <limits>

#include "bindings.h"
#include "octavo/engine.h"

namespace octavo {

std::vector<int32_t> to_token_ids(nb::handle source) {
  nb::object sequence = nb::borrow(source);
  if (nb::hasattr(source, "tolist")) sequence = source.attr("tolist")();
  std::vector<int64_t> wide;
  if (!nb::try_cast(sequence, wide, true) || nb::isinstance<nb::str>(source)) {
    throw InvalidArgument("prompt_token_ids: expected a sequence of integers");
  }
  std::vector<int32_t> ids;
  ids.reserve(wide.size());
  for (int64_t id : wide) {
    if (id < std::numeric_limits<int32_t>::min() || id > std::numeric_limits<int32_t>::max()) {
      throw InvalidArgument("Token id " + std::to_string(id) +
                            " is out of vocabulary; expected a 32-bit id");
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

nb::dict to_dict(const EngineStats& stats) {
  nb::dict result;
  result["num_running"] = stats.num_running;
  result["num_waiting"] = stats.num_waiting;
  result["num_blocks_used"] = stats.num_blocks_used;
  result["num_blocks_total"] = stats.num_blocks_total;
  result["num_steps"] = stats.num_steps;
  result["num_preemptions"] = stats.num_preemptions;
  result["num_recomputed_tokens"] = stats.num_recomputed_tokens;
  result["num_prompt_tokens"] = stats.num_prompt_tokens;
  result["num_generated_tokens"] = stats.num_generated_tokens;
  result["num_scheduled_tokens"] = stats.num_scheduled_tokens;
  result["prefix_cache_queries"] = stats.prefix_cache_queries;
  result["prefix_cache_hits"] = stats.prefix_cache_hits;
  result["num_requests_finished"] = stats.num_requests_finished;
  result["num_requests_aborted"] = stats.num_requests_aborted;
  return result;
}

}  // namespace octavo
