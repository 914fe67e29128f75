#include "cuda_backend.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <span>

#include "cuda_error.h"
#include "cuda_weight.h"
#include "launch/rows.h"
#include "launch/skinny.h"

namespace octavo::cuda {
namespace {

constexpr size_t kFirstBatchBytes = size_t{8} << 20;

DeviceMemory memory_now() {
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "memory");
  return {.free_at_start = static_cast<int64_t>(free), .free = static_cast<int64_t>(free)};
}

const CudaWeight& weight_of(const PackedWeight* weight) {
  return static_cast<const CudaWeight&>(*weight);
}

int32_t round_up(int64_t value, int64_t unit) {
  return static_cast<int32_t>((value + unit - 1) / unit * unit);
}

}  // namespace

CudaBackend::CudaBackend(int32_t device)
    : device_(open_device(device)),
      at_start_(memory_now()),
      gemm_(stream_.get()),
      sampler_(stream_.get()),
      uploader_(stream_.get()),
      recordings_(stream_.get()) {
  reserve_batch(kFirstBatchBytes);
}

// What is in flight may use everything that goes now.
CudaBackend::~CudaBackend() {
  cudaSetDevice(device_.index);
  cudaStreamSynchronize(stream_.get());
}

DeviceInfo CudaBackend::info() const { return {.name = "cuda", .isa = device_.isa()}; }

std::optional<DeviceMemory> CudaBackend::memory() const {
  use_device();
  return DeviceMemory{.free_at_start = at_start_.free_at_start, .free = memory_now().free};
}

void CudaBackend::use_device() const { check_cuda(cudaSetDevice(device_.index), "device"); }

Buffer CudaBackend::allocate(size_t bytes) {
  use_device();
  Buffer buffer = allocate_device(bytes, stream_.get());
  gemm_.allocated(buffer.data(), buffer.bytes());
  return buffer;
}

void CudaBackend::stage(void* target, const void* source, size_t bytes) {
  std::memcpy(staging_.acquire(bytes), source, bytes);
  check_cuda(
      cudaMemcpyAsync(target, staging_.current(), bytes, cudaMemcpyHostToDevice, stream_.get()),
      "copy_to_device");
  staging_.release(stream_.get());
}

void CudaBackend::copy_to_device(const Tensor& target, const void* source) {
  OCTAVO_CHECK(target.contiguous(), "copy_to_device: expected a contiguous tensor");
  use_device();
  const size_t bytes = static_cast<size_t>(target.size()) * dtype_size(target.dtype());
  if (bytes == 0) return;
  if (bytes <= kStagedBytes) {
    stage(target.data(), source, bytes);
  } else {
    check_cuda(cudaMemcpyAsync(target.data(), source, bytes, cudaMemcpyHostToDevice, stream_.get()),
               "copy_to_device");
    stream_.wait();
  }
  gemm_.written(target.data(), bytes);
}

void CudaBackend::copy_to_host(void* target, const Tensor& source) {
  OCTAVO_CHECK(source.contiguous(), "copy_to_host: expected a contiguous tensor");
  use_device();
  const size_t bytes = static_cast<size_t>(source.size()) * dtype_size(source.dtype());
  if (bytes > 0 && bytes <= kStagedBytes) {
    void* pinned = staging_.acquire(bytes);
    check_cuda(cudaMemcpyAsync(pinned, source.data(), bytes, cudaMemcpyDeviceToHost, stream_.get()),
               "copy_to_host");
    stream_.wait();
    std::memcpy(target, pinned, bytes);
  } else if (bytes > 0) {
    check_cuda(cudaMemcpyAsync(target, source.data(), bytes, cudaMemcpyDeviceToHost, stream_.get()),
               "copy_to_host");
  }
  stream_.wait();
  sampler_.finish();
}

std::unique_ptr<PackedWeight> CudaBackend::pack(std::span<const WeightSegment> segments,
                                                const WeightTarget& target) {
  use_device();
  return pack_weight(uploader_, *this, segments, target);
}

size_t CudaBackend::kv_block_bytes(const KvShape& shape) const {
  if (shape.dtype == DType::kInt8) {
    throw NotSupported(
        "kv_cache_dtype: 'int8' on CUDA; expected auto, float32, float16 or bfloat16");
  }
  return 2 * static_cast<size_t>(shape.kv_heads) * static_cast<size_t>(shape.block_size) *
         static_cast<size_t>(shape.head_dim) * dtype_size(shape.dtype);
}

void CudaBackend::begin_step(const StepMeta& meta) {
  use_device();
  meta_ = meta;
  plan_batch(meta);
}

void CudaBackend::reserve_batch(size_t bytes) {
  if (batch_buffer_.bytes() >= bytes) return;
  stream_.wait();
  recordings_.clear();  // they read the buffer that goes
  batch_buffer_ = allocate_device(std::max(bytes, 2 * batch_buffer_.bytes()), stream_.get());
}

// One buffer and one copy: query_start, context_len, decode_sequences, block_tables, and then the
// tiles. All but the tiles lie at places that follow from the numbers of sequences and of columns,
// so that a recorded step finds them.
void CudaBackend::plan_batch(const StepMeta& meta) {
  const int32_t sequences = meta.num_sequences();
  const int32_t stride = round_up(sequences + 1, 16);
  std::vector<int32_t>& words = batch_words_;
  words.assign(static_cast<size_t>(3 * stride), 0);
  std::ranges::copy(meta.query_start, words.begin());
  std::ranges::copy(meta.context_len, words.begin() + stride);
  int32_t decode = 0;
  for (int32_t i = 0; i < sequences; ++i) {
    if (meta.query_start[i + 1] - meta.query_start[i] == 1) words[2 * stride + decode++] = i;
  }
  // The longest first, so that the last blocks of threads to end are short ones.
  const std::span decode_sequences(words.data() + 2 * stride, static_cast<size_t>(decode));
  std::ranges::stable_sort(decode_sequences, std::greater<>(),
                           [&](int32_t i) { return meta.context_len[static_cast<size_t>(i)]; });
  words.insert(words.end(), meta.block_tables.begin(), meta.block_tables.end());
  words.resize(static_cast<size_t>(round_up(static_cast<int64_t>(words.size()), 16)));
  const auto tiles_at = static_cast<int64_t>(words.size());
  tiles_.clear();
  if (tile_rows_ > 0 && decode < sequences) plan_tiles(meta, tile_rows_, tiles_);
  for (const QueryTile& tile : tiles_) words.insert(words.end(), {tile.sequence, tile.first_row});

  reserve_batch(words.size() * sizeof(int32_t));
  stage(batch_buffer_.data(), words.data(), words.size() * sizeof(int32_t));
  const auto* base = batch_buffer_.as<const int32_t>();
  batch_.query_start = base;
  batch_.context_len = base + stride;
  batch_.decode_sequences = base + 2 * stride;
  batch_.block_tables = base + 3 * stride;
  batch_.tiles = reinterpret_cast<const QueryTile*>(base + tiles_at);
  batch_.num_decode = decode;
  batch_.num_tiles = static_cast<int32_t>(tiles_.size());
  batch_.max_blocks = meta.max_blocks;
  batch_.block_size = meta.block_size;
}

int64_t CudaBackend::padded_rows(int64_t rows) const {
  if (rows <= 4) return rows;
  return round_up(rows, 8);
}

void CudaBackend::replay(const ReplayKey& key, const std::function<void()>& body) {
  use_device();
  recordings_.run(key, body);
}

void CudaBackend::forget_replays() {
  use_device();
  stream_.wait();
  recordings_.clear();
}

void CudaBackend::embed(const EmbedArgs& args) {
  check_args(args);
  launch_embed({.table = weight_of(args.table).data(),
                .ids = args.ids,
                .offset = args.offset,
                .accumulate = args.accumulate,
                .out = args.out},
               stream_.get());
}

void CudaBackend::linear(const LinearArgs& args) {
  check_args(args);
  const void* weight = weight_of(args.weight).data();
  const SkinnyLinear skinny{.weight = weight,
                            .x = args.x,
                            .bias = args.bias,
                            .activation = args.activation,
                            .residual = args.residual,
                            .out = args.out};
  if (takes_skinny(skinny)) return launch_skinny(skinny, stream_.get());
  gemm_.run({.weight = weight,
             .x = args.x,
             .bias = args.bias,
             .activation = args.activation,
             .residual = args.residual,
             .out = args.out});
}

void CudaBackend::gated_mlp(const GatedMlpArgs& args) {
  check_args(args);
  const int64_t intermediate = args.scratch.dim(1) / 2;
  // The products' own place, as if the scratch were [tokens, intermediate].
  const Tensor gated(args.scratch.data(), args.scratch.dtype(), {args.x.dim(0), intermediate});
  const SkinnyGate skinny{.weight = weight_of(args.gate_up).data(),
                          .x = args.x,
                          .bias = args.gate_up_bias,
                          .activation = args.activation,
                          .out = gated};
  if (!args.scratch.contiguous() || !takes_skinny_gate(skinny)) return Backend::gated_mlp(args);
  launch_skinny_gate(skinny, stream_.get());
  linear({.x = gated,
          .weight = args.down,
          .bias = args.down_bias,
          .residual = args.residual,
          .out = args.out});
}

void CudaBackend::rms_norm(const RmsNormArgs& args) {
  check_args(args);
  launch_rms_norm(args, stream_.get());
}

void CudaBackend::layer_norm(const LayerNormArgs& args) {
  check_args(args);
  launch_layer_norm(args, stream_.get());
}

void CudaBackend::gate(const GateArgs& args) {
  check_args(args);
  launch_gate(args, stream_.get());
}

void CudaBackend::gather_rows(const GatherRowsArgs& args) {
  check_args(args);
  launch_gather_rows(args, stream_.get());
}

void CudaBackend::rope_store(const RopeStoreArgs& args) {
  check_args(args);
  launch_rope_store(args, stream_.get());
}

// Outgrown buffers stay: recorded steps go on using them.
void CudaBackend::reserve_splits(const AttentionArgs& args) {
  const auto heads = static_cast<int32_t>(args.q.dim(1));
  const KvShape& shape = args.kv.shape;
  const size_t state = split_workspace_bytes(batch_.num_decode, heads, shape.kv_heads,
                                             shape.head_dim, device_.multiprocessors);
  const size_t done = static_cast<size_t>(batch_.num_decode) * static_cast<size_t>(shape.kv_heads) *
                      sizeof(int32_t);
  for (const auto& [buffer, bytes] : {std::pair{&split_state_, state}, {&split_done_, done}}) {
    if (buffer->bytes() >= bytes) continue;
    retired_.push_back(std::move(*buffer));
    *buffer = allocate_device(std::max(bytes, 2 * retired_.back().bytes()), stream_.get());
  }
  batch_.split_state = split_state_.as<float>();
  batch_.split_done = split_done_.as<int32_t>();
  batch_.num_splits = decode_splits(batch_.num_decode, shape.kv_heads, device_.multiprocessors);
}

void CudaBackend::attention(const AttentionArgs& args) {
  check_args(args);
  const auto heads = static_cast<int32_t>(args.q.dim(1));
  const KvShape& shape = args.kv.shape;
  check_attention_shape(heads, shape, args.q.dtype());
  const int32_t rows = query_tile_rows(heads, shape.kv_heads, shape.head_dim, args.q.dtype());
  if (rows != tile_rows_) {  // the model's first step, or a layer of another shape
    tile_rows_ = rows;
    if (batch_.num_decode < meta_.num_sequences()) plan_batch(meta_);
  }
  if (batch_.num_decode > 0) reserve_splits(args);
  launch_attention(args, batch_, stream_.get());
}

void CudaBackend::sample(const SampleArgs& args) {
  check_args(args);
  sampler_.sample(args);
}

void CudaBackend::copy_blocks(std::span<const KvLayer> layers, std::span<const BlockCopy> copies) {
  use_device();
  if (copies_buffer_.bytes() < copies.size_bytes()) {
    stream_.wait();
    copies_buffer_ =
        allocate_device(std::max(copies.size_bytes(), 2 * copies_buffer_.bytes()), stream_.get());
  }
  stage(copies_buffer_.data(), copies.data(), copies.size_bytes());
  for (const KvLayer& layer : layers) {
    launch_copy_blocks(layer.data, kv_block_bytes(layer.shape), copies_buffer_.as<BlockCopy>(),
                       static_cast<int32_t>(copies.size()), stream_.get());
  }
}

}  // namespace octavo::cuda
