// The plain values: SamplingParams, RequestOutput, ModelInfo.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "octavo/engine.h"

namespace octavo {
namespace {

SamplingParams make_sampling_params(int32_t n, float temperature, float top_p, int32_t top_k,
                                    float min_p, std::optional<uint64_t> seed,
                                    std::optional<int32_t> max_tokens, int32_t min_tokens,
                                    bool ignore_eos, std::vector<int32_t> stop_token_ids,
                                    std::vector<int32_t> extra_eos_token_ids) {
  return {.n = n,
          .temperature = temperature,
          .top_p = top_p,
          .top_k = top_k,
          .min_p = min_p,
          .seed = seed,
          .max_tokens = max_tokens,
          .min_tokens = min_tokens,
          .ignore_eos = ignore_eos,
          .stop_token_ids = std::move(stop_token_ids),
          .extra_eos_token_ids = std::move(extra_eos_token_ids)};
}

void bind_sampling_params(nb::module_& m) {
  nb::class_<SamplingParams>(m, "SamplingParams", "How the tokens of one request are chosen.")
      .def(
          "__init__",
          [](SamplingParams* self, int32_t n, float temperature, float top_p, int32_t top_k,
             float min_p, std::optional<uint64_t> seed, std::optional<int32_t> max_tokens,
             int32_t min_tokens, bool ignore_eos, std::vector<int32_t> stop_token_ids,
             std::vector<int32_t> extra_eos_token_ids) {
            new (self) SamplingParams(make_sampling_params(
                n, temperature, top_p, top_k, min_p, seed, max_tokens, min_tokens, ignore_eos,
                std::move(stop_token_ids), std::move(extra_eos_token_ids)));
          },
          nb::kw_only(), nb::arg("n") = 1, nb::arg("temperature") = 1.0f, nb::arg("top_p") = 1.0f,
          nb::arg("top_k") = 0, nb::arg("min_p") = 0.0f, nb::arg("seed") = nb::none(),
          nb::arg("max_tokens") = nb::none(), nb::arg("min_tokens") = 0,
          nb::arg("ignore_eos") = false, nb::arg("stop_token_ids") = std::vector<int32_t>(),
          nb::arg("extra_eos_token_ids") = std::vector<int32_t>())
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
      .def_rw("extra_eos_token_ids", &SamplingParams::extra_eos_token_ids);
}

void bind_request_output(nb::module_& m) {
  nb::class_<RequestOutput>(m, "RequestOutput", "What one step produced for one sample.")
      .def_ro("request_id", &RequestOutput::request_id)
      .def_ro("sample_index", &RequestOutput::sample_index)
      .def_ro("new_token_ids", &RequestOutput::new_token_ids)
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
