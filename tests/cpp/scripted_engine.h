// An Engine without a model, for the tests of what stands on it: its steps give each sample the
// tokens 0, 1, 2 and so on, and wait, fail or sleep as the test says. A test program that includes
// this defines the methods of Engine itself, in place of the library's. One engine at a time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "octavo/engine.h"

namespace octavo::test {

struct Script {
  std::mutex mutex;
  std::condition_variable changed;
  bool hold_steps = false;  // a step waits inside
  int steps_begun = 0;
  bool sleep_in_step = false;  // as if another thread had called sleep()
  std::string step_error;      // the next step throws it
  std::string add_error;       // add_request throws it, validate does not
  std::vector<RequestId> added, aborted;
  std::vector<std::pair<RequestId, int32_t>> samples_aborted;  // with success
  std::atomic<int> num_looks{0};                               // at has_unfinished_requests

  void hold(bool value) {
    const std::lock_guard lock(mutex);
    hold_steps = value;
    changed.notify_all();
  }
  void wait_for_steps(int count) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return steps_begun >= count; });
  }
};

inline Script* script = nullptr;

struct ScriptedRequest {
  SamplingParams params;
  bool prompt_computed = false;
  std::vector<int32_t> num_tokens;  // [n], of each sample; -1: it has ended
  int32_t num_unended = 0;
};

}  // namespace octavo::test

namespace octavo {

struct Engine::Impl {
  std::mutex mutex;
  std::map<RequestId, test::ScriptedRequest> requests;
  RequestId next_id = 1000;
  int32_t level = 0;
  EngineStats stats;
};

Engine::Engine(const EngineConfig&) : impl_(std::make_unique<Impl>()) {}
Engine::~Engine() = default;

void Engine::validate(std::span<const int32_t> prompt, const SamplingParams&) const {
  if (prompt.empty()) throw InvalidArgument("The decoder prompt cannot be empty");
}

RequestId Engine::add_request(std::span<const int32_t>, const SamplingParams& params,
                              std::string_view) {
  const std::lock_guard lock(impl_->mutex);
  const std::lock_guard script_lock(test::script->mutex);
  if (!test::script->add_error.empty()) throw InvalidArgument(test::script->add_error);
  const RequestId id = impl_->next_id++;
  impl_->requests[id] = {.params = params,
                         .num_tokens = std::vector<int32_t>(static_cast<size_t>(params.n)),
                         .num_unended = params.n};
  test::script->added.push_back(id);
  return id;
}

void Engine::validate(std::span<const int32_t>, const BeamSearchParams&) const {}
RequestId Engine::add_beam_search(std::span<const int32_t> prompt, const BeamSearchParams& params,
                                  std::string_view salt) {
  return add_request(prompt, params.tokens, salt);
}

std::vector<RequestOutput> Engine::step() {
  const std::lock_guard lock(impl_->mutex);
  {
    std::unique_lock script_lock(test::script->mutex);
    ++test::script->steps_begun;
    test::script->changed.notify_all();
    test::script->changed.wait(script_lock, [] { return !test::script->hold_steps; });
    if (!test::script->step_error.empty()) throw InternalError(test::script->step_error);
  }
  if (test::script->sleep_in_step) impl_->level = 1;
  if (impl_->level != 0) throw Error("step: the engine sleeps; expected it to be awake");
  ++impl_->stats.num_steps;
  std::vector<RequestOutput> outputs;
  for (auto& [id, request] : impl_->requests) {
    const size_t n = request.prompt_computed ? request.num_tokens.size() : 1;
    request.prompt_computed = true;
    for (size_t i = 0; i < n; ++i) {
      int32_t& count = request.num_tokens[i];
      if (count < 0) continue;
      RequestOutput output{.request_id = id, .sample_index = static_cast<int32_t>(i)};
      output.new_token_ids.push_back(count++);
      if (count == request.params.max_tokens.value_or(1 << 30)) {
        count = -1;
        output.finish_reason = FinishReason::kLength;
        output.request_finished = --request.num_unended == 0;
      }
      outputs.push_back(std::move(output));
    }
  }
  std::erase_if(impl_->requests, [](const auto& entry) { return entry.second.num_unended == 0; });
  return outputs;
}

bool Engine::abort(RequestId id) {
  const std::lock_guard lock(impl_->mutex);
  if (impl_->requests.erase(id) == 0) return false;
  const std::lock_guard script_lock(test::script->mutex);
  test::script->aborted.push_back(id);
  return true;
}

bool Engine::abort_sample(RequestId id, int32_t sample_index) {
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->requests.find(id);
  if (found == impl_->requests.end()) return false;
  test::ScriptedRequest& request = found->second;
  int32_t& count = request.num_tokens.at(static_cast<size_t>(sample_index));
  const bool leads = sample_index == 0 && request.params.n > 1 && !request.prompt_computed;
  if (count < 0 || leads) return false;
  count = -1;
  if (--request.num_unended == 0) impl_->requests.erase(found);
  const std::lock_guard script_lock(test::script->mutex);
  test::script->samples_aborted.emplace_back(id, sample_index);
  return true;
}

bool Engine::has_unfinished_requests() const {
  ++test::script->num_looks;
  const std::lock_guard lock(impl_->mutex);
  return !impl_->requests.empty();
}

EngineStats Engine::stats() const {
  const std::lock_guard lock(impl_->mutex);
  EngineStats stats = impl_->stats;
  stats.num_running = static_cast<int64_t>(impl_->requests.size());
  return stats;
}

void Engine::sleep(int32_t level) {
  const std::lock_guard lock(impl_->mutex);
  impl_->level = level;
}

void Engine::wake_up(bool, bool) { sleep(0); }

int32_t Engine::sleep_level() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->level;
}

}  // namespace octavo
