// The plain values that come out of the engine: RequestOutput, ModelInfo.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <tuple>
#include <utility>

#include "bindings.h"
#include "octavo/engine.h"

namespace octavo {
namespace {

// A numpy array that owns the values.
template <typename T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> to_array(std::vector<T> values) {
  auto kept = std::make_unique<std::vector<T>>(std::move(values));
  T* data = kept->data();
  const size_t size = kept->size();
  nb::capsule owner(kept.release(),
                    [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::numpy, T, nb::ndim<1>>(data, {size}, owner);
}

// The columns of all positions, one after another; the output's own are dropped on the way, so that
// a long prompt's exist once.
nb::object take_prompt_logprobs(RequestOutput& output) {
  if (output.prompt_logprobs.empty()) return nb::none();
  std::vector<int32_t> ids, ranks;
  std::vector<float> logprobs;
  std::vector<int64_t> ends;
  for (TokenLogprobs& position : output.prompt_logprobs) {
    ids.insert(ids.end(), position.token_ids.begin(), position.token_ids.end());
    logprobs.insert(logprobs.end(), position.logprobs.begin(), position.logprobs.end());
    ranks.insert(ranks.end(), position.ranks.begin(), position.ranks.end());
    ends.push_back(static_cast<int64_t>(ids.size()));
    position = {};
  }
  output.prompt_logprobs = {};
  return nb::make_tuple(to_array(std::move(ids)), to_array(std::move(logprobs)),
                        to_array(std::move(ranks)), to_array(std::move(ends)));
}

nb::list beam_logprobs(const Beam& beam) {
  nb::list list;
  for (const auto& candidates : beam.logprobs) {
    list.append(nb::make_tuple(candidates->token_ids, candidates->logprobs, candidates->ranks));
  }
  return list;
}

std::optional<std::string> reason_name(FinishReason reason) {
  if (reason == FinishReason::kNone) return std::nullopt;
  return std::string(finish_reason_name(reason));
}

void bind_beam(nb::module_& m) {
  nb::class_<Beam>(m, "Beam", "One result of a beam search.")
      .def_ro("token_ids", &Beam::token_ids)
      .def_ro("logprob", &Beam::logprob)
      .def_ro("score", &Beam::score)
      .def_prop_ro("finish_reason",
                   [](const Beam& beam) { return reason_name(beam.finish_reason); })
      .def_ro("stop_token_id", &Beam::stop_token_id)
      .def_ro("stop_index", &Beam::stop_index)
      .def_prop_ro("logprobs", &beam_logprobs);
}

std::tuple<double, double, double, double, int32_t> times(const RequestOutput& output) {
  const RequestTimes& t = output.times;
  return {t.queued, t.scheduled, t.first_token, t.last_token, t.num_preemptions};
}

// A list of (token_ids, logprobs, ranks).
nb::list to_list(const std::vector<TokenLogprobs>& positions) {
  nb::list list;
  for (const TokenLogprobs& position : positions) {
    list.append(nb::make_tuple(position.token_ids, position.logprobs, position.ranks));
  }
  return list;
}

void bind_request_output(nb::module_& m) {
  nb::class_<RequestOutput>(m, "RequestOutput", "What one step produced for one sample.")
      .def_ro("request_id", &RequestOutput::request_id)
      .def_ro("sample_index", &RequestOutput::sample_index)
      .def_ro("new_token_ids", &RequestOutput::new_token_ids)
      .def_prop_ro("logprobs", [](const RequestOutput& output) { return to_list(output.logprobs); })
      .def_prop_ro("prompt_logprobs", &take_prompt_logprobs)
      .def_prop_ro("finish_reason",
                   [](const RequestOutput& output) { return reason_name(output.finish_reason); })
      .def_ro("stop_token_id", &RequestOutput::stop_token_id)
      .def_ro("error", &RequestOutput::error)
      .def_ro("num_cached_tokens", &RequestOutput::num_cached_tokens)
      .def_ro("request_finished", &RequestOutput::request_finished)
      .def_ro("beams", &RequestOutput::beams)
      .def_prop_ro("times", &times);
}

void bind_model_info(nb::module_& m) {
  nb::class_<ModelInfo>(m, "ModelInfo", "What the loaded model is.")
      .def_ro("architecture", &ModelInfo::architecture)
      .def_ro("dtype", &ModelInfo::dtype)
      .def_ro("quantization", &ModelInfo::quantization)
      .def_ro("kv_cache_dtype", &ModelInfo::kv_cache_dtype)
      .def_ro("device", &ModelInfo::device)
      .def_ro("isa", &ModelInfo::isa)
      .def_ro("num_threads", &ModelInfo::num_threads)
      .def_ro("vocab_size", &ModelInfo::vocab_size)
      .def_ro("hidden_size", &ModelInfo::hidden_size)
      .def_ro("num_layers", &ModelInfo::num_layers)
      .def_ro("max_model_len", &ModelInfo::max_model_len)
      .def_ro("num_parameters", &ModelInfo::num_parameters)
      .def_ro("weight_bytes", &ModelInfo::weight_bytes)
      .def_ro("kv_cache_bytes", &ModelInfo::kv_cache_bytes)
      .def_ro("workspace_bytes", &ModelInfo::workspace_bytes)
      .def_ro("num_kv_blocks", &ModelInfo::num_kv_blocks)
      .def_ro("block_size", &ModelInfo::block_size)
      .def_ro("eos_token_id", &ModelInfo::eos_token_id)
      .def_ro("config_json", &ModelInfo::config_json);
}

}  // namespace

void bind_types(nb::module_& m) {
  bind_beam(m);
  bind_request_output(m);
  bind_model_info(m);
}

}  // namespace octavo
