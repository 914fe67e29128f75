#include "weights/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/check.h"
#include "weights/dummy_checkpoint.h"
#include "weights/file_checkpoint.h"

namespace octavo {
namespace {

namespace fs = std::filesystem;

// What of a model's directory matters for the choice of a reader.
struct DirectoryFiles {
  bool safetensors = false;
  std::vector<std::string> gguf;
  std::vector<std::string> pickle;
};

DirectoryFiles list_directory(const std::string& path) {
  DirectoryFiles files;
  std::error_code error;
  fs::directory_iterator entries(path, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    const std::string extension = entries->path().extension().string();
    if (name == "model.safetensors" || name == "model.safetensors.index.json") {
      files.safetensors = true;
    }
    if (extension == ".gguf") files.gguf.push_back(entries->path().string());
    if (extension == ".bin" || extension == ".pt" || extension == ".pth" || extension == ".ckpt") {
      files.pickle.push_back(name);
    }
  }
  if (error) throw LoadError(str_cat(path, ": cannot be listed (", error.message(), ")"));
  std::ranges::sort(files.pickle);
  return files;
}

[[noreturn]] void fail_pickle(const std::string& path, const std::string& name) {
  throw LoadError(
      str_cat(path, ": the weights are in '", name,
              "', a pickle file; Octavo never reads pickle, because "
              "loading one runs the code in it; convert it where you trust it, with transformers: "
              "AutoModelForCausalLM.from_pretrained(model).save_pretrained(directory); expected "
              "model.safetensors, model.safetensors.index.json or a .gguf file"));
}

[[noreturn]] void fail_no_weights(const std::string& path, const DirectoryFiles& files) {
  if (!files.pickle.empty()) fail_pickle(path, files.pickle.front());
  if (files.gguf.size() > 1) {
    throw LoadError(str_cat(path, ": has ", files.gguf.size(),
                            " .gguf files; expected one, or the path of one"));
  }
  throw LoadError(str_cat(path,
                          ": has no weights; expected model.safetensors, "
                          "model.safetensors.index.json or one .gguf file"));
}

std::unique_ptr<Checkpoint> open_directory(const std::string& path, std::string_view load_format) {
  if (load_format == "dummy") return std::make_unique<DummyCheckpoint>(path);
  const DirectoryFiles files = list_directory(path);
  if (load_format != "gguf" && files.safetensors) return FileCheckpoint::open_safetensors(path);
  if (load_format != "safetensors" && files.gguf.size() == 1) {
    return FileCheckpoint::open_gguf(files.gguf.front());
  }
  fail_no_weights(path, files);
}

bool is_gguf(const std::string& path) {
  if (path.ends_with(".gguf")) return true;
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  return std::string_view(magic, sizeof magic) == "GGUF";
}

std::unique_ptr<Checkpoint> open_file(const std::string& path, std::string_view load_format) {
  if (load_format == "dummy" || load_format == "safetensors") {
    throw LoadError(str_cat(path,
                            ": is a file; expected a directory with config.json for load_format '",
                            load_format, "'"));
  }
  if (is_gguf(path)) return FileCheckpoint::open_gguf(path);
  const std::string extension = fs::path(path).extension().string();
  if (extension == ".bin" || extension == ".pt" || extension == ".pth") {
    fail_pickle(path, fs::path(path).filename().string());
  }
  throw LoadError(str_cat(path,
                          ": is not a model; expected a directory with config.json and "
                          "safetensors, or a .gguf file"));
}

}  // namespace

QuantizedMatrix WeightTensor::matrix() const {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return {scheme, rows, shape.empty() ? 1 : shape.back(), data.data(), noise_seed};
}

std::unique_ptr<Checkpoint> open_checkpoint(const std::string& path, std::string_view load_format) {
  constexpr std::string_view kFormats[] = {"auto", "safetensors", "gguf", "dummy"};
  if (std::ranges::find(kFormats, load_format) == std::end(kFormats)) {
    throw InvalidArgument(str_cat("load_format: '", load_format,
                                  "' is unknown; expected auto, safetensors, gguf or dummy"));
  }
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    throw LoadError(str_cat(path, ": ", error ? error.message() : "there is no such file",
                            "; expected a model's directory or a .gguf file"));
  }
  return fs::is_directory(status) ? open_directory(path, load_format)
                                  : open_file(path, load_format);
}

}  // namespace octavo
