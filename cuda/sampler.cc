#include "sampler.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/sample_row.h"
#include "cuda_error.h"
#include "device.h"
#include "launch/sample.h"
#include "packed_rows.h"

namespace octavo::cuda {
namespace {

// Rows that are kept as they were before their edits, at a time.
constexpr int32_t kMostCopies = 32;

// Pinned memory of the host, handed out piece by piece until it is reset. Pieces stay where they
// are.
class PinnedArena {
 public:
  PinnedArena() = default;
  ~PinnedArena() { release(); }
  PinnedArena(const PinnedArena&) = delete;
  PinnedArena& operator=(const PinnedArena&) = delete;

  unsigned char* take(size_t bytes) {
    if (blocks_.empty() || blocks_.back().bytes - used_ < bytes) grow(bytes);
    unsigned char* piece = blocks_.back().data + used_;
    used_ += bytes;
    return piece;
  }
  // Nothing uses the pieces any more. Several blocks become one of their size.
  void reset() {
    used_ = 0;
    if (blocks_.size() < 2) return;
    size_t bytes = 0;
    for (const Block& block : blocks_) bytes += block.bytes;
    release();
    grow(bytes);
  }

 private:
  struct Block {
    unsigned char* data;
    size_t bytes;
  };

  void grow(size_t bytes) {
    void* data = nullptr;
    const size_t size = std::max(bytes, size_t{256} << 10);
    check_cuda(cudaHostAlloc(&data, size, cudaHostAllocDefault), "sample");
    blocks_.push_back({static_cast<unsigned char*>(data), size});
    used_ = 0;
  }
  void release() {
    for (const Block& block : blocks_) cudaFreeHost(block.data);
    blocks_.clear();
  }

  std::vector<Block> blocks_;
  size_t used_ = 0;  // of the last block
};

// Log-probabilities that finish() hands over.
struct Pending {
  TokenLogprobs* target;
  const PackedResult* result;
  bool by_ids;
  bool logits;
};

}  // namespace

struct Sampler::Impl {
  explicit Impl(cudaStream_t on) : stream(on) {
    check_cuda(cudaEventCreateWithFlags(&copied, cudaEventDisableTiming), "sample");
  }
  ~Impl() {
    cudaStreamSynchronize(stream);  // copies to the pinned memory may be on their way
    cudaEventDestroy(copied);
  }

  // Freeing memory waits for the kernels that use it.
  void reserve(Buffer& buffer, size_t bytes) {
    if (buffer.bytes() >= bytes) return;
    const size_t grown = std::max(bytes, 2 * buffer.bytes());
    buffer = Buffer();
    buffer = allocate_device(grown, stream);
  }
  void reserve_argmax(int64_t rows) {
    reserve(best, static_cast<size_t>(rows) * sizeof(uint64_t));
    reserve(done, static_cast<size_t>(rows) * sizeof(uint32_t));
  }
  void reserve_copies(int64_t rows, int64_t vocab) {
    reserve(copies, static_cast<size_t>(rows * vocab) * sizeof(float));
  }

  void argmax(const SampleArgs& args);
  void launch(const SampleArgs& args);
  void launch_groups(const SampleArgs& args, unsigned char* results);
  void fetch(const SampleArgs& args);
  void sample_on_host(const SampleArgs& args, int64_t index, bool wanted);
  void finish();

  cudaStream_t stream;
  cudaEvent_t copied = nullptr;  // the last results
  StagingRing uploads;
  PinnedArena results;
  PinnedArena host_row;
  Buffer best, done;  // of argmax
  Buffer device_upload, device_results, copies;
  PackedRows packed;
  std::vector<Pending> pending;
};

namespace {

bool is_wanted(const SampleArgs& args, size_t index) {
  return !args.logprobs.empty() && args.rows[index].logprobs.wanted;
}

}  // namespace

void Sampler::Impl::argmax(const SampleArgs& args) {
  reserve_argmax(args.logits.dim(0));
  launch_argmax({.logits = args.logits.as<float>(),
                 .stride = args.logits.stride(0),
                 .rows = args.logits.dim(0),
                 .vocab = args.logits.dim(1),
                 .best = best.as<uint64_t>(),
                 .done = done.as<uint32_t>(),
                 .out = args.out.as<int32_t>()},
                stream);
}

// Rows whose copies do not fit at a time come one group after the other, on the same memory.
void Sampler::Impl::launch_groups(const SampleArgs& args, unsigned char* device_results_data) {
  size_t first = 0;
  while (first < packed.count()) {
    size_t end = first;
    bool copied_any = false;
    while (end < packed.count() && !(copied_any && packed.row(end).copy == 0)) {
      copied_any = packed.row(end++).copy >= 0 || copied_any;
    }
    launch_sample_rows({.logits = args.logits.as<float>(),
                        .stride = args.logits.stride(0),
                        .vocab = args.logits.dim(1),
                        .upload = device_upload.data(),
                        .first = static_cast<int64_t>(first),
                        .rows = static_cast<int64_t>(end - first),
                        .copies = copies.as<float>(),
                        .results = device_results_data,
                        .out = args.out.as<int32_t>()},
                       stream);
    first = end;
  }
}

// The rows of the device: one upload, mostly one launch, and a copy of what the host will ask for.
void Sampler::Impl::launch(const SampleArgs& args) {
  const int64_t vocab = args.logits.dim(1);
  packed.clear(args.rows.size(), vocab);
  int32_t num_copies = 0, most_copies = 0;
  for (size_t i = 0; i < args.rows.size(); ++i) {
    const SampleRow& row = args.rows[i];
    const bool wanted = is_wanted(args, i);
    if (needs_host(row, wanted, vocab)) continue;
    const bool copy = PackedRows::needs_copy(row, wanted);
    packed.add(row, static_cast<int32_t>(i), wanted, copy ? num_copies++ % kMostCopies : -1);
    most_copies = std::min(num_copies, kMostCopies);
  }
  if (packed.count() == 0) return;
  const std::span<const unsigned char> bytes = packed.bytes();
  reserve(device_upload, bytes.size());
  reserve(device_results, packed.result_bytes());
  if (most_copies > 0) reserve_copies(most_copies, vocab);
  void* staged = uploads.acquire(bytes.size());
  std::memcpy(staged, bytes.data(), bytes.size());
  check_cuda(
      cudaMemcpyAsync(device_upload.data(), staged, bytes.size(), cudaMemcpyHostToDevice, stream),
      "sample");
  uploads.release(stream);
  launch_groups(args, device_results.as<unsigned char>());
  fetch(args);
}

void Sampler::Impl::fetch(const SampleArgs& args) {
  if (packed.result_bytes() == 0) return;
  unsigned char* data = results.take(packed.result_bytes());
  check_cuda(cudaMemcpyAsync(data, device_results.data(), packed.result_bytes(),
                             cudaMemcpyDeviceToHost, stream),
             "sample");
  check_cuda(cudaEventRecord(copied, stream), "sample");
  for (size_t i = 0; i < packed.count(); ++i) {
    const PackedRow row = packed.row(i);
    if (row.wanted == 0) continue;
    pending.push_back({.target = &args.logprobs[static_cast<size_t>(row.row)],
                       .result = reinterpret_cast<const PackedResult*>(data + row.result_at),
                       .by_ids = row.num_ids > 0,
                       .logits = row.scaled == 0});
  }
}

void Sampler::Impl::sample_on_host(const SampleArgs& args, int64_t index, bool wanted) {
  const int64_t vocab = args.logits.dim(1);
  const size_t bytes = static_cast<size_t>(vocab) * sizeof(float);
  host_row.reset();
  auto* logits = reinterpret_cast<float*>(host_row.take(bytes));
  check_cuda(
      cudaMemcpyAsync(logits, args.logits.row<float>(index), bytes, cudaMemcpyDeviceToHost, stream),
      "sample");
  check_cuda(cudaStreamSynchronize(stream), "sample");
  const auto i = static_cast<size_t>(index);
  auto* staged = static_cast<int32_t*>(uploads.acquire(sizeof(int32_t)));
  *staged = sample_row(logits, vocab, args.rows[i], wanted ? &args.logprobs[i] : nullptr);
  check_cuda(cudaMemcpyAsync(args.out.as<int32_t>() + index, staged, sizeof(int32_t),
                             cudaMemcpyHostToDevice, stream),
             "sample");
  uploads.release(stream);
}

void Sampler::Impl::finish() {
  if (pending.empty()) return;
  check_cuda(cudaEventSynchronize(copied), "sample");
  for (const Pending& one : pending) {
    if (one.result->token < 0) continue;
    *one.target = unpack_result(one.result, one.by_ids, one.logits);
  }
  pending.clear();
  results.reset();
}

Sampler::Sampler(cudaStream_t stream) : impl_(std::make_unique<Impl>(stream)) {}
Sampler::~Sampler() = default;

void Sampler::reserve(int64_t max_rows, int64_t vocab) {
  impl_->reserve_argmax(max_rows);
  impl_->reserve(impl_->device_upload, size_t{1} << 20);
  impl_->reserve(impl_->device_results, size_t{1} << 20);
  impl_->reserve_copies(std::min<int64_t>(max_rows, kMostCopies), vocab);
}

void Sampler::sample(const SampleArgs& args) {
  if (args.rows.empty()) return;
  bool plain = true, host = false;
  for (size_t i = 0; i < args.rows.size(); ++i) {
    const bool wanted = is_wanted(args, i);
    plain = plain && is_plain(args.rows[i], wanted);
    host = host || needs_host(args.rows[i], wanted, args.logits.dim(1));
  }
  if (plain) return impl_->argmax(args);
  impl_->launch(args);
  for (size_t i = 0; host && i < args.rows.size(); ++i) {
    const bool wanted = is_wanted(args, i);
    if (!needs_host(args.rows[i], wanted, args.logits.dim(1))) continue;
    impl_->sample_on_host(args, static_cast<int64_t>(i), wanted);
  }
}

void Sampler::finish() { impl_->finish(); }

}  // namespace octavo::cuda
