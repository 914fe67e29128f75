// What the engine tells its recorder, and Engine::metrics.
#include <algorithm>

#include "engine/engine_impl.h"
#include "octavo/engine.h"

namespace octavo {

// A token has been appended to the sample, in the step that ended at step_end.
void Engine::Impl::record_token(Sample& sample) {
  Request& request = *sample.request;
  ++request.num_output_tokens;
  request.longest_output = std::max(request.longest_output, request.num_generated(sample));
  request.times.last_token = step_end;
  if (request.times.first_token == 0) {
    request.times.first_token = step_end;
    metrics.on_first_token(request.times);
  }
  if (sample.last_token != 0) metrics.on_next_token(step_end - sample.last_token);
  sample.last_token = step_end;
}

void Engine::Impl::record_end(const Request& request, FinishReason reason) {
  const bool with_tokens = request.times.last_token != 0;
  metrics.on_finished({.times = request.times,
                       .ended = with_tokens ? request.times.last_token : monotonic_seconds(),
                       .num_prompt_tokens = request.num_prompt_tokens,
                       .num_cached_tokens = request.num_cached_tokens,
                       .prompt_computed = request.prompt_computed,
                       .num_generated = request.num_output_tokens,
                       .max_generated = request.longest_output,
                       .n = request.params.n,
                       .max_tokens = request.params.max_tokens,
                       .reason = reason});
}

std::vector<Metric> Engine::metrics() const {
  const EngineStats now = stats();
  const auto lock = impl_->lock();
  return impl_->metrics.metrics(now, impl_->asleep.level());
}

}  // namespace octavo
