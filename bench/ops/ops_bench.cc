// Times the CPU back end's words over the shapes of real models, and says what share of the
// machine's own limits they reach: a bench of reading memory and of multiplying, in the same run.
//
//   ops_bench [--threads N] [--model NAME] [--op NAME] [--seconds S] [--json FILE]
//
// OCTAVO_ISA chooses the instruction set. Figures are medians of runs of at least S seconds.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "base/thread_pool.h"
#include "ceilings.h"
#include "octavo/engine.h"
#include "quant/scheme.h"

namespace octavo::bench {
namespace {

struct Options {
  int32_t threads = 0;
  std::string model, op, json;
  double seconds = 0.1;
};

struct ModelShape {
  const char* name;
  int64_t hidden, intermediate, heads, kv_heads, head_dim, vocab;
};
constexpr ModelShape kModels[] = {
    {"SmolLM2-135M", 576, 1536, 9, 3, 64, 49152},
    {"Llama-3.2-1B", 2048, 8192, 32, 8, 64, 128256},
    {"Llama-3-8B", 4096, 14336, 32, 8, 128, 128256},
};

double now() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

// Median seconds of one call.
double time_of(double seconds, const std::function<void()>& run) {
  run();
  std::vector<double> times;
  const double end = now() + seconds;
  while (now() < end || times.size() < 5) {
    const double begin = now();
    run();
    times.push_back(now() - begin);
  }
  std::nth_element(times.begin(), times.begin() + static_cast<ptrdiff_t>(times.size() / 2),
                   times.end());
  return times[times.size() / 2];
}

// Random bytes that are a valid matrix: halves of moderate size wherever a scale may be.
std::vector<std::byte> random_matrix(Scheme scheme, int64_t rows, int64_t cols) {
  const SchemeInfo& info = scheme_info(scheme);
  std::vector<std::byte> bytes(
      static_cast<size_t>(rows * (cols / info.block_elements) * info.block_bytes));
  uint32_t state = 12345;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    state = state * 1664525u + 1013904223u;
    const auto half = static_cast<uint16_t>(0x2000u | (state >> 16 & 0x9fffu));
    std::memcpy(bytes.data() + i, &half, 2);
  }
  return bytes;
}

struct WeightKind {
  const char* name;
  Scheme scheme;
  DType dtype;
  IntegerWeights integers = IntegerWeights::kKeep;
};
constexpr WeightKind kKinds[] = {
    {"float32", Scheme::kBF16, DType::kFloat32},
    {"float16", Scheme::kF16, DType::kFloat16},
    {"bfloat16", Scheme::kBF16, DType::kBFloat16},
    {"int8", Scheme::kBF16, DType::kBFloat16, IntegerWeights::kInt8},
    {"Q4_0", Scheme::kQ4_0, DType::kFloat16},
    {"Q4_1", Scheme::kQ4_1, DType::kFloat16},
    {"Q5_0", Scheme::kQ5_0, DType::kFloat16},
    {"Q5_1", Scheme::kQ5_1, DType::kFloat16},
    {"Q8_0", Scheme::kQ8_0, DType::kFloat16},
    {"Q4_K", Scheme::kQ4_K, DType::kFloat16},
    {"Q6_K", Scheme::kQ6_K, DType::kFloat16},
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options), backend_(make_backend("cpu", options.threads)) {
    const DeviceInfo info = backend_->info();
    ceilings_ = measure_ceilings(info.num_threads, options.seconds);
    std::printf("%s, %d threads; memory %.1f GB/s, float32 multiply-add %.0f GFLOP/s\n",
                info.isa.c_str(), info.num_threads, ceilings_.memory / 1e9,
                ceilings_.multiply_add / 1e9);
  }

  void linear(const ModelShape& model, const char* name, int64_t in, int64_t out,
              const WeightKind& kind) {
    if (!wanted("linear") || in % scheme_info(kind.scheme).block_elements != 0) return;
    const std::vector<std::byte> bytes = random_matrix(kind.scheme, out, in);
    const WeightSegment segment{
        .matrix = {.scheme = kind.scheme, .rows = out, .cols = in, .data = bytes.data()}};
    // More copies than the caches hold, as the layers of a model.
    std::vector<std::unique_ptr<PackedWeight>> weights;
    size_t total = 0;
    while (total < (size_t{160} << 20) && weights.size() < 32) {
      weights.push_back(backend_->pack({&segment, 1}, {kind.dtype, kind.integers}));
      total += weights.back()->bytes();
    }
    for (const int64_t rows : {1, 4, 16, 64, 512}) {
      Buffer x = random_floats(rows * in), y = backend_->allocate(4 * rows * out);
      const Tensor input(x.data(), DType::kFloat32, {rows, in});
      const Tensor output(y.data(), DType::kFloat32, {rows, out});
      size_t next = 0;
      const double seconds = time_of(options_.seconds, [&] {
        backend_->linear({.x = input, .weight = weights[next].get(), .out = output});
        next = (next + 1) % weights.size();
      });
      const double flops = 2.0 * static_cast<double>(rows * in * out);
      report(model.name, name, kind.name, rows, seconds, static_cast<double>(weights[0]->bytes()),
             flops);
    }
  }

  // `sequences` sequences with a context of `context` each, `rows` new tokens of each.
  void attention(const ModelShape& model, DType dtype, int64_t sequences, int64_t context,
                 int64_t rows) {
    if (!wanted("attention")) return;
    constexpr int32_t kBlock = 16;
    const auto blocks = static_cast<int32_t>((context + kBlock - 1) / kBlock);
    const KvShape shape{kBlock, static_cast<int32_t>(model.kv_heads),
                        static_cast<int32_t>(model.head_dim), dtype};
    const size_t bytes = backend_->kv_block_bytes(shape) * static_cast<size_t>(blocks * sequences);
    const Buffer cache = backend_->allocate(bytes);
    std::memset(cache.data(), 0x3c, bytes);  // small numbers in every dtype, in pages of its own
    const int64_t tokens = sequences * rows, width = model.heads * model.head_dim;
    Buffer q = random_floats(tokens * width), y = backend_->allocate(4 * tokens * width);
    std::vector<int32_t> starts, lengths, tables(static_cast<size_t>(blocks * sequences));
    for (int64_t i = 0; i <= sequences; ++i) starts.push_back(static_cast<int32_t>(i * rows));
    lengths.assign(static_cast<size_t>(sequences), static_cast<int32_t>(context));
    std::iota(tables.begin(), tables.end(), 0);
    std::shuffle(tables.begin(), tables.end(),
                 std::minstd_rand(1));  // as an engine in use has them
    backend_->begin_step({.num_tokens = static_cast<int32_t>(tokens),
                          .block_size = kBlock,
                          .query_start = starts,
                          .context_len = lengths,
                          .block_tables = tables,
                          .max_blocks = blocks});
    const Tensor query(q.data(), DType::kFloat32, {tokens, model.heads, model.head_dim});
    const Tensor out(y.data(), DType::kFloat32, {tokens, width});
    const double seconds = time_of(options_.seconds, [&] {
      backend_->attention({.q = query, .kv = {cache.data(), shape}, .scale = 0.1f, .out = out});
    });
    const double keys = static_cast<double>(rows) * (context - (rows - 1) / 2.0);
    char name[64];
    std::snprintf(name, sizeof name, "attention %ldx%ld", sequences, context);
    report(model.name, name, dtype_name(dtype).data(), rows, seconds, static_cast<double>(bytes),
           4.0 * keys * static_cast<double>(width * sequences));
  }

  void rows_word(const ModelShape& model, int64_t rows) {
    if (!wanted("rows")) return;
    Buffer x = random_floats(rows * model.hidden), w = random_floats(model.hidden);
    const Tensor t(x.data(), DType::kFloat32, {rows, model.hidden});
    const Tensor weight(w.data(), DType::kFloat32, {model.hidden});
    const double seconds = time_of(options_.seconds, [&] {
      backend_->rms_norm({.x = t, .weight = weight, .eps = 1e-5f, .out = t});
    });
    report(model.name, "rms_norm", "float32", rows, seconds, 8.0 * rows * model.hidden,
           4.0 * rows * model.hidden);
  }

  void sample(const ModelShape& model, int64_t rows, const char* name, const SampleRow& row) {
    if (!wanted("sample")) return;
    Buffer logits = random_floats(rows * model.vocab), ids = backend_->allocate(4 * rows);
    const std::vector<SampleRow> all(static_cast<size_t>(rows), row);
    const double seconds = time_of(options_.seconds, [&] {
      backend_->sample({.logits = Tensor(logits.data(), DType::kFloat32, {rows, model.vocab}),
                        .rows = all,
                        .out = Tensor(ids.data(), DType::kInt32, {rows})});
    });
    report(model.name, name, "float32", rows, seconds, 4.0 * rows * model.vocab,
           2.0 * rows * model.vocab);
  }

  bool wanted(const char* op) const { return options_.op.empty() || options_.op == op; }

  void write_json() const {
    if (options_.json.empty()) return;
    FILE* file = std::fopen(options_.json.c_str(), "w");
    if (file == nullptr) return std::perror(options_.json.c_str());
    std::fprintf(file, "[\n%s\n]\n", json_.c_str());
    std::fclose(file);
  }

 private:
  Buffer random_floats(int64_t count) {
    Buffer buffer = backend_->allocate(4 * static_cast<size_t>(count));
    uint32_t state = 99;
    for (int64_t i = 0; i < count; ++i) {
      state = state * 1664525u + 1013904223u;
      buffer.as<float>()[i] = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
    }
    return buffer;
  }

  void report(const char* model, const char* op, const char* dtype, int64_t rows, double seconds,
              double bytes, double flops) {
    const double rate = bytes / seconds, flop_rate = flops / seconds;
    const double memory = rate / ceilings_.memory, compute = flop_rate / ceilings_.multiply_add;
    std::printf(
        "%-13s %-20s %-9s %4ld rows %10.1f us %7.1f GB/s %5.2f of memory %8.1f GFLOP/s "
        "%5.2f of float32\n",
        model, op, dtype, rows, seconds * 1e6, rate / 1e9, memory, flop_rate / 1e9, compute);
    std::fflush(stdout);
    char line[512];
    std::snprintf(line, sizeof line,
                  "{\"model\": \"%s\", \"op\": \"%s\", \"dtype\": \"%s\", \"rows\": %ld, "
                  "\"seconds\": %.9f, \"bytes_per_s\": %.4g, \"of_memory\": %.4f, "
                  "\"flop_per_s\": %.4g, \"of_multiply_add\": %.4f}",
                  model, op, dtype, rows, seconds, rate, memory, flop_rate, compute);
    json_ += (json_.empty() ? "" : ",\n") + std::string(line);
  }

  const Options options_;
  std::unique_ptr<Backend> backend_;
  Ceilings ceilings_;
  std::string json_;
};

void run_model(Bench& bench, const ModelShape& model) {
  const int64_t qkv = (model.heads + 2 * model.kv_heads) * model.head_dim;
  for (const WeightKind& kind : kKinds) {
    bench.linear(model, "qkv", model.hidden, qkv, kind);
    bench.linear(model, "gate_up", model.hidden, 2 * model.intermediate, kind);
    bench.linear(model, "down", model.intermediate, model.hidden, kind);
  }
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    bench.attention(model, dtype, 1, 1024, 1);
    bench.attention(model, dtype, 32, 512, 1);
    bench.attention(model, dtype, 64, 2048, 1);  // more than caches hold
    bench.attention(model, dtype, 1, 1024, 1024);
  }
  bench.rows_word(model, 1);
  bench.rows_word(model, 512);
  bench.sample(model, 1, "greedy", {});
  bench.sample(model, 16, "top_p 0.95", {.temperature = 0.8f, .top_p = 0.95f});
}

bool read_options(int argc, char** argv, Options& options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--threads")
      options.threads = std::atoi(value.c_str());
    else if (name == "--model")
      options.model = value;
    else if (name == "--op")
      options.op = value;
    else if (name == "--seconds")
      options.seconds = std::atof(value.c_str());
    else if (name == "--json")
      options.json = value;
    else
      return false;
  }
  return argc % 2 == 1;
}

int run(int argc, char** argv) {
  Options options;
  if (!read_options(argc, argv, options)) {
    std::fprintf(stderr,
                 "usage: ops_bench [--threads N] [--model NAME] [--op linear|attention|"
                 "rows|sample] [--seconds S] [--json FILE]\n");
    return 2;
  }
  Bench bench(options);
  for (const ModelShape& model : kModels) {
    const bool chosen = options.model.empty() ? &model == kModels : options.model == model.name;
    if (chosen) run_model(bench, model);
  }
  bench.write_json();
  return 0;
}

}  // namespace
}  // namespace octavo::bench

int main(int argc, char** argv) {
  try {
    return octavo::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
