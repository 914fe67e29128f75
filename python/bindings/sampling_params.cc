// SamplingParams and what they are made of.
#include "octavo/sampling_params.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <memory>
#include <string_view>
#include <tuple>
#include <utility>

#include "bindings.h"
#include "octavo/beam_search.h"
#include "octavo/error.h"

namespace octavo {
namespace {

// Keyword arguments by the fields' names; None is a field's default.
template <typename Params>
void init_by_name(nb::pointer_and_handle<Params> self, const nb::kwargs& kwargs) {
  new (self.p) Params();
  nb::inst_mark_ready(self.h);
  for (const auto& [name, value] : kwargs) {
    if (!nb::hasattr(self.h, name)) {
      throw nb::type_error(("parameters: unknown argument '" + nb::cast<std::string>(name) +
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

constexpr std::array<std::pair<StructureKind, std::string_view>, 6> kStructureKinds{{
    {StructureKind::kJsonSchema, "json_schema"},
    {StructureKind::kJsonObject, "json_object"},
    {StructureKind::kRegex, "regex"},
    {StructureKind::kChoice, "choice"},
    {StructureKind::kGrammar, "grammar"},
    {StructureKind::kStructuralTag, "structural_tag"},
}};

std::string structure_kind(const StructuredOutputs& structure) {
  for (const auto& [kind, name] : kStructureKinds) {
    if (kind == structure.kind) return std::string(name);
  }
  return "";
}

void set_structure_kind(StructuredOutputs& structure, const std::string& name) {
  for (const auto& [kind, known] : kStructureKinds) {
    if (known == name) {
      structure.kind = kind;
      return;
    }
  }
  throw InvalidArgument("structured_outputs: kind '" + name +
                        "'; expected json_schema, json_object, regex, choice, grammar or "
                        "structural_tag");
}

void bind_structured_outputs(nb::module_& m) {
  nb::class_<StructuredOutputs>(m, "StructuredOutputs",
                                "What the text of a request must look like.")
      .def(
          "__init__",
          [](StructuredOutputs* self, const std::string& kind, std::string text,
             std::vector<std::string> choices, bool any_whitespace, bool additional_properties) {
            StructuredOutputs structure{.text = std::move(text),
                                        .choices = std::move(choices),
                                        .any_whitespace = any_whitespace,
                                        .additional_properties = additional_properties};
            set_structure_kind(structure, kind);
            new (self) StructuredOutputs(std::move(structure));
          },
          nb::arg("kind"), nb::arg("text") = "", nb::arg("choices") = std::vector<std::string>(),
          nb::arg("any_whitespace") = true, nb::arg("additional_properties") = true)
      .def_prop_rw("kind", &structure_kind, &set_structure_kind)
      .def_rw("text", &StructuredOutputs::text)
      .def_rw("choices", &StructuredOutputs::choices)
      .def_rw("any_whitespace", &StructuredOutputs::any_whitespace)
      .def_rw("additional_properties", &StructuredOutputs::additional_properties);
}

// A Python callable. The engine's threads run it, and may drop the last reference to it.
class PythonProcessor : public LogitsProcessor {
 public:
  explicit PythonProcessor(nb::callable function) : function_(std::move(function)) {}
  ~PythonProcessor() override {
    if (!Py_IsInitialized()) {
      function_.release();  // nobody is left to give it to
      return;
    }
    const nb::gil_scoped_acquire acquire;
    function_.reset();
  }

  nb::handle function() const { return function_; }

  void process(std::span<const int32_t> ids, std::span<float> logits) override {
    const nb::gil_scoped_acquire acquire;
    using Ids = nb::ndarray<nb::numpy, const int32_t, nb::ndim<1>>;
    using Logits = nb::ndarray<nb::numpy, float, nb::ndim<1>>;
    // Views: their owner is somebody else, for as long as the call takes.
    const nb::capsule nobody(this, [](void*) noexcept {});
    try {
      function_(Ids(ids.data(), {ids.size()}, nobody),
                Logits(logits.data(), {logits.size()}, nobody));
    } catch (nb::python_error& error) {
      const std::string what = error.what();  // with the GIL, which the handler above lacks
      throw Error(what);
    }
  }

 private:
  nb::object function_;
};

// The callable behind a processor; null for one of C++.
nb::handle function_of(const std::shared_ptr<LogitsProcessor>& processor) {
  const auto* python = dynamic_cast<const PythonProcessor*>(processor.get());
  return python == nullptr ? nb::handle() : python->function();
}

nb::list logits_processors(const SamplingParams& params) {
  nb::list list;
  for (const auto& processor : params.logits_processors) {
    const nb::handle function = function_of(processor);
    list.append(function.is_valid() ? nb::borrow(function) : nb::none());
  }
  return list;
}

void set_logits_processors(SamplingParams& params, const std::vector<nb::callable>& functions) {
  params.logits_processors.clear();
  for (const nb::callable& function : functions) {
    params.logits_processors.push_back(std::make_shared<PythonProcessor>(function));
  }
}

using Processors = std::vector<std::shared_ptr<LogitsProcessor>>;

Processors& processors_of(SamplingParams& params) { return params.logits_processors; }
Processors& processors_of(BeamSearchParams& params) { return params.tokens.logits_processors; }

// The processors whose references are this object's alone, see own_processors: not those of
// parameters inside of a BeamSearchParams, which are no object of their own.
template <typename Params>
Processors* processors_of(PyObject* self) {
  const auto [ready, destruct] = nb::inst_state(self);
  return ready && destruct ? &processors_of(*nb::inst_ptr<Params>(self)) : nullptr;
}

template <typename Params>
int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  const Processors* processors = processors_of<Params>(self);
  if (processors == nullptr) return 0;
  for (const auto& processor : *processors) Py_VISIT(function_of(processor).ptr());
  return 0;
}

template <typename Params>
int clear(PyObject* self) {
  // Moved out first: what goes with a callable may look at these parameters.
  if (Processors* processors = processors_of<Params>(self)) {
    const Processors dropped = std::move(*processors);
  }
  return 0;
}

// A callable may refer to its own parameters, so Python's cyclic collector has to see it.
template <typename Params>
PyType_Slot collector_slots[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(&traverse<Params>)},
    {Py_tp_clear, reinterpret_cast<void*>(&clear<Params>)},
    {0, nullptr},
};

using Sizes = std::tuple<int32_t, int32_t, int32_t>;

Sizes repetition_detection(const SamplingParams& params) {
  const RepetitionDetection& r = params.repetition_detection;
  return {r.max_pattern_size, r.min_pattern_size, r.min_count};
}

void set_repetition_detection(SamplingParams& params, const Sizes& sizes) {
  params.repetition_detection = {.max_pattern_size = std::get<0>(sizes),
                                 .min_pattern_size = std::get<1>(sizes),
                                 .min_count = std::get<2>(sizes)};
}

void bind_sampling_params(nb::module_& m) {
  nb::class_<SamplingParams>(m, "SamplingParams", "How the tokens of one request are chosen.",
                             nb::type_slots(collector_slots<SamplingParams>))
      .def("__init__", &init_by_name<SamplingParams>)
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
      .def_rw("logprob_token_ids", &SamplingParams::logprob_token_ids)
      .def_rw("structured_outputs", &SamplingParams::structured_outputs)
      .def_prop_rw("repetition_detection", &repetition_detection, &set_repetition_detection)
      .def_rw("skip_reading_prefix_cache", &SamplingParams::skip_reading_prefix_cache)
      .def_prop_rw("logits_processors", &logits_processors, &set_logits_processors);
}

constexpr std::array<std::pair<EarlyStopping, std::string_view>, 4> kEarlyStopping{{
    {EarlyStopping::kVllm, "vllm"},
    {EarlyStopping::kTrue, "true"},
    {EarlyStopping::kFalse, "false"},
    {EarlyStopping::kNever, "never"},
}};

std::string early_stopping(const BeamSearchParams& params) {
  for (const auto& [rule, name] : kEarlyStopping) {
    if (rule == params.early_stopping) return std::string(name);
  }
  return "";
}

void set_early_stopping(BeamSearchParams& params, const std::string& name) {
  for (const auto& [rule, known] : kEarlyStopping) {
    if (known == name) {
      params.early_stopping = rule;
      return;
    }
  }
  throw InvalidArgument("early_stopping: '" + name + "'; expected vllm, true, false or never");
}

void bind_beam_search_params(nb::module_& m) {
  nb::class_<BeamSearchParams>(m, "BeamSearchParams",
                               "How the most probable continuations of a prompt are searched.",
                               nb::type_slots(collector_slots<BeamSearchParams>))
      .def("__init__", &init_by_name<BeamSearchParams>)
      .def_rw("beam_width", &BeamSearchParams::beam_width)
      .def_rw("max_tokens", &BeamSearchParams::max_tokens)
      .def_rw("length_penalty", &BeamSearchParams::length_penalty)
      .def_prop_rw("early_stopping", &early_stopping, &set_early_stopping)
      .def_rw("num_return_sequences", &BeamSearchParams::num_return_sequences)
      .def_rw("num_groups", &BeamSearchParams::num_groups)
      .def_rw("diversity_penalty", &BeamSearchParams::diversity_penalty)
      .def_rw("stop", &BeamSearchParams::stop)
      .def_rw("stream", &BeamSearchParams::stream)
      .def_prop_rw(
          "tokens", [](BeamSearchParams& self) -> SamplingParams& { return self.tokens; },
          [](BeamSearchParams& self, const SamplingParams& tokens) {
            self.tokens = own_processors(tokens);
          });
}

}  // namespace

SamplingParams own_processors(const SamplingParams& params) {
  SamplingParams copy = params;
  for (auto& processor : copy.logits_processors) {
    const nb::handle function = function_of(processor);
    if (!function.is_valid()) continue;
    processor = std::make_shared<PythonProcessor>(nb::borrow<nb::callable>(function));
  }
  return copy;
}

void bind_params(nb::module_& m) {
  bind_structured_outputs(m);
  bind_sampling_params(m);
  bind_beam_search_params(m);
}

}  // namespace octavo
