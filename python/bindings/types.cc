// The plain values: SamplingParams, RequestOutput, ModelInfo.
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "octavo/engine.h"

namespace octavo {
namespace {

// Keyword arguments by the fields' names; None is a field's default.
void init_sampling_params(nb::pointer_and_handle<SamplingParams> self, const nb::kwargs& kwargs) {
  new (self.p) SamplingParams();
  nb::inst_mark_ready(self.h);
  for (const auto& [name, value] : kwargs) {
    if (!nb::hasattr(self.h, name)) {
      throw nb::type_error(("SamplingParams: unknown argument '" + nb::cast<std::string>(name) +
                            "'; expected the name of a field")
                               .c_str());
    }
    if (!value.is_none()) nb::setattr(self.h, name, value);
  }
}

std::map<int32_t, float> logit_bias(const SamplingParams& params) {
  std::map<int32_t, float> result;
  for (const TokenBias& bias : params.logit_bias) result[bias.token_id] = bias.bias;
  return result;
}

void set_logit_bias(SamplingParams& params, const std::map<int32_t, float>& biases) {
  params.logit_bias.clear();
  for (const auto& [token_id, bias] : biases) params.logit_bias.push_back({token_id, bias});
}

void bind_sampling_params(nb::module_& m) {
  nb::class_<SamplingParams>(m, "SamplingParams", "How the tokens of one request are chosen.")
      .def("__init__", &init_sampling_params)
      .def_rw("n", &SamplingParams::n)
      .def_rw("temperature", &SamplingParams::temperature)
      .def_rw("top_p", &SamplingParams::top_p)
      .def_rw("top_k", &SamplingParams::top_k)
      .def_rw("min_p", &SamplingParams::min_p)
      .def_rw("seed", &SamplingParams::seed)
      .def_rw("max_tokens", &SamplingParams::max_tokens)
      .def_rw("min_tokens", &SamplingParams::min_tokens)
      .def_rw("ignore_eos", &SamplingParams::ignore_eos)
      .def_rw("stop_token_ids", &SamplingParams::stop_token_ids)
      .def_rw("extra_eos_token_ids", &SamplingParams::extra_eos_token_ids)
      .def_rw("presence_penalty", &SamplingParams::presence_penalty)
      .def_rw("frequency_penalty", &SamplingParams::frequency_penalty)
      .def_rw("repetition_penalty", &SamplingParams::repetition_penalty)
      .def_prop_rw("logit_bias", &logit_bias, &set_logit_bias)
      .def_rw("allowed_token_ids", &SamplingParams::allowed_token_ids)
      .def_rw("bad_words", &SamplingParams::bad_words)
      .def_rw("logprobs", &SamplingParams::logprobs)
      .def_rw("prompt_logprobs", &SamplingParams::prompt_logprobs)
      .def_rw("logprob_token_ids", &SamplingParams::logprob_token_ids);
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
      .def_prop_ro("prompt_logprobs",
                   [](const RequestOutput& output) { return to_list(output.prompt_logprobs); })
      .def_prop_ro("finish_reason",
                   [](const RequestOutput& output) -> std::optional<std::string> {
                     if (!output.finished()) return std::nullopt;
                     return std::string(finish_reason_name(output.finish_reason));
                   })
      .def_ro("stop_token_id", &RequestOutput::stop_token_id)
      .def_ro("error", &RequestOutput::error)
      .def_ro("num_cached_tokens", &RequestOutput::num_cached_tokens)
      .def_ro("request_finished", &RequestOutput::request_finished);
}

void bind_model_info(nb::module_& m) {
  nb::class_<ModelInfo>(m, "ModelInfo", "What the loaded model is.")
      .def_ro("architecture", &ModelInfo::architecture)
      .def_ro("dtype", &ModelInfo::dtype)
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
  bind_sampling_params(m);
  bind_request_output(m);
  bind_model_info(m);
}

}  // namespace octavo
