// The engine. Every call releases the GIL: calls wait for the step in progress.
#include "octavo/engine.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <memory>

#include "bindings.h"
#include "gil.h"

namespace octavo {
namespace {

RequestId add_request(Engine& engine, const std::vector<int32_t>& prompt,
                      const SamplingParams& params, const std::string& cache_salt) {
  const SamplingParams own = own_processors(params);
  const WithoutGil unlocked;
  return engine.add_request(prompt, own, cache_salt);
}

RequestId fork(Engine& engine, RequestId parent, int32_t sample_index,
               const SamplingParams& params) {
  const SamplingParams own = own_processors(params);
  const WithoutGil unlocked;
  return engine.fork(parent, sample_index, own);
}

using LogitsArray = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

LogitsArray compute_logits(Engine& engine, nb::handle source) {
  const std::vector<int32_t> ids = to_token_ids(source);
  std::unique_ptr<std::vector<float>> logits;
  {
    const WithoutGil unlocked;
    logits = std::make_unique<std::vector<float>>(engine.compute_logits(ids));
  }
  const size_t rows = ids.size(), columns = logits->size() / rows;
  float* data = logits->data();
  nb::capsule owner(logits.release(),
                    [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
  return LogitsArray(data, {rows, columns}, owner);
}

nb::dict stats_dict(const Engine& engine) {
  EngineStats stats;
  {
    const WithoutGil unlocked;
    stats = engine.stats();
  }
  return to_dict(stats);
}

nb::dict metric_dict(const Metric& metric) {
  constexpr const char* kKinds[] = {"counter", "gauge", "histogram"};
  nb::dict result, labels;
  for (const auto& [name, value] : metric.labels) labels[name.c_str()] = value;
  result["kind"] = kKinds[static_cast<size_t>(metric.kind)];
  result["name"] = metric.name;
  result["help"] = metric.help;
  result["labels"] = labels;
  if (metric.kind != MetricKind::kHistogram) {
    result["value"] = metric.value;
    return result;
  }
  nb::list buckets;
  for (const auto& [bound, count] : metric.buckets) buckets.append(nb::make_tuple(bound, count));
  result["buckets"] = buckets;
  result["count"] = metric.count;
  result["sum"] = metric.sum;
  return result;
}

nb::list metrics_list(const Engine& engine) {
  std::vector<Metric> metrics;
  {
    const WithoutGil unlocked;
    metrics = engine.metrics();
  }
  nb::list result;
  for (const Metric& metric : metrics) result.append(metric_dict(metric));
  return result;
}

void bind_constructor(nb::class_<Engine>& engine) {
  const EngineConfig defaults;
  engine.def(
      "__init__",
      [](Engine* self, std::string model, std::string device, std::string dtype,
         std::string quantization, std::string kv_cache_dtype, std::string load_format,
         int64_t max_model_len, int32_t max_num_seqs, int32_t max_num_batched_tokens,
         int64_t kv_cache_memory_bytes, int64_t num_kv_blocks, double gpu_memory_utilization,
         bool enable_prefix_caching, bool enable_chunked_prefill, int32_t num_threads,
         int32_t max_logprobs, std::string logprobs_mode, uint64_t seed) {
        const WithoutGil unlocked;
        new (self) Engine({.model = std::move(model),
                           .device = std::move(device),
                           .dtype = std::move(dtype),
                           .quantization = std::move(quantization),
                           .kv_cache_dtype = std::move(kv_cache_dtype),
                           .load_format = std::move(load_format),
                           .max_model_len = max_model_len,
                           .max_num_seqs = max_num_seqs,
                           .max_num_batched_tokens = max_num_batched_tokens,
                           .kv_cache_memory_bytes = kv_cache_memory_bytes,
                           .num_kv_blocks = num_kv_blocks,
                           .gpu_memory_utilization = gpu_memory_utilization,
                           .enable_prefix_caching = enable_prefix_caching,
                           .enable_chunked_prefill = enable_chunked_prefill,
                           .num_threads = num_threads,
                           .max_logprobs = max_logprobs,
                           .logprobs_mode = std::move(logprobs_mode),
                           .seed = seed});
      },
      nb::kw_only(), nb::arg("model"), nb::arg("device") = defaults.device,
      nb::arg("dtype") = defaults.dtype, nb::arg("quantization") = defaults.quantization,
      nb::arg("kv_cache_dtype") = defaults.kv_cache_dtype,
      nb::arg("load_format") = defaults.load_format,
      nb::arg("max_model_len") = defaults.max_model_len,
      nb::arg("max_num_seqs") = defaults.max_num_seqs,
      nb::arg("max_num_batched_tokens") = defaults.max_num_batched_tokens,
      nb::arg("kv_cache_memory_bytes") = defaults.kv_cache_memory_bytes,
      nb::arg("num_kv_blocks") = defaults.num_kv_blocks,
      nb::arg("gpu_memory_utilization") = defaults.gpu_memory_utilization,
      nb::arg("enable_prefix_caching") = defaults.enable_prefix_caching,
      nb::arg("enable_chunked_prefill") = defaults.enable_chunked_prefill,
      nb::arg("num_threads") = defaults.num_threads,
      nb::arg("max_logprobs") = defaults.max_logprobs,
      nb::arg("logprobs_mode") = defaults.logprobs_mode, nb::arg("seed") = defaults.seed);
}

}  // namespace

void bind_engine(nb::module_& m) {
  nb::class_<Engine> engine(m, "Engine", "Owns a model, its KV cache and every request in flight.");
  bind_constructor(engine);
  using Release = nb::call_guard<WithoutGil>;
  engine
      .def(
          "add_request",
          [](Engine& self, nb::handle prompt, const SamplingParams& params,
             const std::string& cache_salt, std::optional<nb::set> owned) {
            const RequestId id = add_request(self, to_token_ids(prompt), params, cache_salt);
            // Within the call: Python handles a signal only after it, when the caller knows the id.
            if (owned) owned->add(id);
            return id;
          },
          nb::arg("prompt_token_ids"), nb::arg("params"), nb::arg("cache_salt") = "",
          nb::arg("owned") = nb::none())
      .def("fork", &fork, nb::arg("parent"), nb::arg("sample_index"), nb::arg("params"))
      .def("step", &Engine::step, Release())
      .def("abort", &Engine::abort, nb::arg("request_id"), Release())
      .def("abort_sample", &Engine::abort_sample, nb::arg("request_id"), nb::arg("sample_index"),
           Release())
      .def("has_unfinished_requests", &Engine::has_unfinished_requests, Release())
      .def("stats", &stats_dict)
      .def(
          "validate",
          [](const Engine& self, nb::handle prompt, const SamplingParams& params) {
            const std::vector<int32_t> ids = to_token_ids(prompt);
            const WithoutGil unlocked;
            self.validate(ids, params);
          },
          nb::arg("prompt_token_ids"), nb::arg("params"))
      .def(
          "set_vocabulary",
          [](Engine& self, const std::vector<nb::bytes>& tokens) {
            std::vector<std::string> vocabulary;
            vocabulary.reserve(tokens.size());
            for (const nb::bytes& token : tokens) {
              vocabulary.emplace_back(token.c_str(), token.size());
            }
            const WithoutGil unlocked;
            self.set_vocabulary(std::move(vocabulary));
          },
          nb::arg("token_bytes"))
      .def("has_vocabulary", &Engine::has_vocabulary, Release())
      .def("metrics", &metrics_list)
      .def("sleep", &Engine::sleep, nb::arg("level"), Release())
      .def("wake_up", &Engine::wake_up, nb::arg("weights") = true, nb::arg("kv_cache") = true,
           Release())
      .def("sleep_level", &Engine::sleep_level, Release())
      .def_prop_ro("model_info", &Engine::model_info, nb::rv_policy::reference_internal)
      .def("reset_prefix_cache", &Engine::reset_prefix_cache, Release())
      .def("compute_logits", &compute_logits, nb::arg("token_ids"));
}

}  // namespace octavo
