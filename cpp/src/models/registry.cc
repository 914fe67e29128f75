#include "models/registry.h"

#include "base/check.h"

namespace octavo {
namespace {

struct Entry {
  std::string_view architecture;
  std::unique_ptr<Model> (*make)(WeightLoader&, const ModelOptions&);
};

constexpr Entry kEntries[] = {
    {"GPT2LMHeadModel", make_gpt2},
    {"LlamaForCausalLM", make_llama},
    {"MistralForCausalLM", make_llama},
    {"OPTForCausalLM", make_opt},
};

}  // namespace

std::vector<std::string_view> known_architectures() {
  std::vector<std::string_view> names;
  for (const Entry& entry : kEntries) names.push_back(entry.architecture);
  return names;
}

std::unique_ptr<Model> make_model(WeightLoader& loader, const ModelOptions& options) {
  const std::string& wanted = loader.checkpoint().architecture();
  for (const Entry& entry : kEntries) {
    if (entry.architecture == wanted) return entry.make(loader, options);
  }
  std::string known;
  for (std::string_view name : known_architectures())
    known += str_cat(known.empty() ? "" : ", ", name);
  throw NotSupported(
      str_cat("architecture '", wanted, "' is not supported; expected one of ", known));
}

}  // namespace octavo
