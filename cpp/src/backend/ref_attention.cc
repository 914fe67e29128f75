// The words of the reference back end that touch the KV cache. A block is its keys
// [block_size, kv_heads, head_dim] and then its values, the same. Vectors of int8 end in a float32,
// their scale: the greatest size of the vector / 127.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/ref.h"
#include "base/check.h"

namespace octavo {
namespace {

// Keys or values of one token: [kv_heads, head_dim] of shape.dtype.
enum class Part { kKeys = 0, kValues = 1 };

int64_t vector_bytes(const KvShape& shape) {
  return static_cast<int64_t>(dtype_size(shape.dtype)) * shape.head_dim +
         (shape.dtype == DType::kInt8 ? 4 : 0);
}

std::byte* kv_vector(const KvLayer& kv, int64_t block, int64_t place, int64_t kv_head, Part part) {
  const KvShape& shape = kv.shape;
  const int64_t half = block * 2 + static_cast<int64_t>(part);
  const int64_t vector = (half * shape.block_size + place) * shape.kv_heads + kv_head;
  return static_cast<std::byte*>(kv.data) + vector * vector_bytes(shape);
}

void write_vector(const float* source, const KvShape& shape, std::byte* out) {
  const auto dim = static_cast<size_t>(shape.head_dim);
  if (shape.dtype != DType::kInt8) return convert_from_float(source, dim, shape.dtype, out);
  float most = 0;
  for (size_t d = 0; d < dim; ++d) {
    const float size = std::fabs(source[d]);
    if (!std::isfinite(size)) most = std::numeric_limits<float>::quiet_NaN();
    if (size > most) most = size;
  }
  const float scale = most / 127.0f, inverse = most > 0 ? 127.0f / most : 0.0f;
  for (size_t d = 0; d < dim; ++d) {
    const float number = std::nearbyint(source[d] * inverse);
    out[d] = static_cast<std::byte>(std::isfinite(number) ? static_cast<int>(number) : 0);
  }
  std::memcpy(out + dim, &scale, sizeof scale);
}

void read_vector(const std::byte* source, const KvShape& shape, float* out) {
  const auto dim = static_cast<size_t>(shape.head_dim);
  if (shape.dtype != DType::kInt8) return convert_to_float(shape.dtype, source, dim, out);
  float scale;
  std::memcpy(&scale, source + dim, sizeof scale);
  for (size_t d = 0; d < dim; ++d) {
    out[d] = static_cast<float>(static_cast<int8_t>(source[d])) * scale;
  }
}

void rotate(float* x, const float* cos_sin, int64_t rotary_dim) {
  const int64_t half = rotary_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const double first = x[i], second = x[i + half];
    const double cos = cos_sin[i], sin = cos_sin[i + half];
    x[i] = static_cast<float>(first * cos - second * sin);
    x[i + half] = static_cast<float>(second * cos + first * sin);
  }
}

void rotate_heads(const Tensor& x, int64_t token, const float* cos_sin, int64_t rotary_dim) {
  for (int64_t head = 0; head < x.dim(1); ++head) {
    rotate(x.row<float>(token) + head * x.stride(1), cos_sin, rotary_dim);
  }
}

}  // namespace

size_t RefBackend::kv_block_bytes(const KvShape& shape) const {
  return size_t{2} * static_cast<size_t>(shape.block_size) * static_cast<size_t>(shape.kv_heads) *
         static_cast<size_t>(vector_bytes(shape));
}

void RefBackend::begin_step(const StepMeta& meta) {
  const auto sequences = static_cast<size_t>(meta.num_sequences());
  OCTAVO_CHECK(meta.block_size > 0, "begin_step: block_size is ", meta.block_size,
               "; expected at least 1");
  OCTAVO_CHECK(meta.query_start.size() == sequences + 1 && meta.query_start.front() == 0 &&
                   meta.query_start.back() == meta.num_tokens,
               "begin_step: query_start; expected sequences + 1 rows from 0 to num_tokens");
  const size_t table_ids = sequences * static_cast<size_t>(meta.max_blocks);
  OCTAVO_CHECK(meta.block_tables.size() >= table_ids, "begin_step: block_tables has ",
               meta.block_tables.size(), " ids; expected sequences * max_blocks, ", table_ids);
  for (size_t i = 0; i < sequences; ++i) {
    const int32_t rows = meta.query_start[i + 1] - meta.query_start[i];
    const bool pads = meta.context_len[i] == 0 && rows == 1;
    OCTAVO_CHECK(pads || (rows >= 0 && meta.context_len[i] >= rows), "begin_step: sequence ", i,
                 " has ", rows, " rows and a context of ", meta.context_len[i],
                 "; expected 0 <= rows <= context");
    OCTAVO_CHECK(int64_t{meta.max_blocks} * meta.block_size >= meta.context_len[i],
                 "begin_step: sequence ", i, " has a context of ", meta.context_len[i],
                 "; expected at most max_blocks * block_size");
  }
  num_tokens_ = meta.num_tokens;
  block_size_ = meta.block_size;
  max_blocks_ = meta.max_blocks;
  query_start_.assign(meta.query_start.begin(), meta.query_start.end());
  context_len_.assign(meta.context_len.begin(), meta.context_len.end());
  block_tables_.assign(meta.block_tables.data(), meta.block_tables.data() + table_ids);
}

void RefBackend::rope_store(const RopeStoreArgs& args) {
  check_args(args);
  OCTAVO_CHECK(args.q.dtype() == DType::kFloat32, "rope_store: expected float32 activations");
  const KvShape& shape = args.kv.shape;
  for (int64_t token = 0; token < args.q.dim(0); ++token) {
    if (args.cos_sin) {
      const int32_t row = args.cos_sin_rows.as<int32_t>()[token];
      OCTAVO_CHECK(row >= 0 && row < args.cos_sin.dim(0), "rope_store: row ", row,
                   " of cos_sin; expected less than ", args.cos_sin.dim(0));
      rotate_heads(args.q, token, args.cos_sin.row<float>(row), args.cos_sin.dim(1));
      rotate_heads(args.k, token, args.cos_sin.row<float>(row), args.cos_sin.dim(1));
    }
    const int32_t slot = args.slots.as<int32_t>()[token];
    if (slot < 0) continue;
    const int64_t block = slot / shape.block_size, place = slot % shape.block_size;
    for (int64_t head = 0; head < shape.kv_heads; ++head) {
      write_vector(args.k.row<float>(token) + head * args.k.stride(1), shape,
                   kv_vector(args.kv, block, place, head, Part::kKeys));
      write_vector(args.v.row<float>(token) + head * args.v.stride(1), shape,
                   kv_vector(args.kv, block, place, head, Part::kValues));
    }
  }
}

void RefBackend::attention(const AttentionArgs& args) {
  check_args(args);
  OCTAVO_CHECK(args.q.dtype() == DType::kFloat32, "attention: expected float32 activations");
  OCTAVO_CHECK(args.q.dim(0) == num_tokens_ && args.kv.shape.block_size == block_size_,
               "attention: ", args.q.dim(0), " rows and blocks of ", args.kv.shape.block_size,
               "; expected those of begin_step, ", num_tokens_, " and ", block_size_);
  for (size_t i = 0; i < context_len_.size(); ++i) {
    const int32_t rows = query_start_[i + 1] - query_start_[i];
    if (context_len_[i] == 0) {
      for (int32_t row = 0; row < rows; ++row) {
        std::fill_n(args.out.row<float>(query_start_[i] + row), args.out.dim(1), 0.0f);
      }
      continue;
    }
    for (int32_t row = 0; row < rows; ++row) {
      const int32_t position = context_len_[i] - rows + row;
      const int32_t first = args.window == 0 ? 0 : std::max(0, position - args.window + 1);
      attend(args, query_start_[i] + row, static_cast<int32_t>(i), first, position);
    }
  }
}

void RefBackend::attend(const AttentionArgs& args, int64_t token, int32_t sequence, int32_t first,
                        int32_t last) const {
  const KvShape& shape = args.kv.shape;
  const int32_t* table = block_tables_.data() + int64_t{sequence} * max_blocks_;
  const int64_t group = args.q.dim(1) / shape.kv_heads;
  std::vector<float> vector(static_cast<size_t>(shape.head_dim));
  const auto read = [&](int32_t position, int64_t kv_head, Part part) {
    const int32_t block = table[position / block_size_];
    read_vector(kv_vector(args.kv, block, position % block_size_, kv_head, part), shape,
                vector.data());
  };
  std::vector<double> weights(static_cast<size_t>(last - first + 1));  // scores, then exponentials
  std::vector<double> sums(vector.size());
  for (int64_t head = 0; head < args.q.dim(1); ++head) {
    const float* q = args.q.row<float>(token) + head * args.q.stride(1);
    for (int32_t position = first; position <= last; ++position) {
      read(position, head / group, Part::kKeys);
      double score = 0;
      for (size_t d = 0; d < vector.size(); ++d) score += static_cast<double>(q[d]) * vector[d];
      weights[position - first] = score * args.scale;
    }
    const double largest = *std::max_element(weights.begin(), weights.end());
    double total = 0;
    std::fill(sums.begin(), sums.end(), 0.0);
    for (int32_t position = first; position <= last; ++position) {
      const double weight = std::exp(weights[position - first] - largest);
      total += weight;
      read(position, head / group, Part::kValues);
      for (size_t d = 0; d < vector.size(); ++d) sums[d] += weight * vector[d];
    }
    float* out = args.out.row<float>(token) + head * shape.head_dim;
    for (size_t d = 0; d < sums.size(); ++d) out[d] = static_cast<float>(sums[d] / total);
  }
}

void RefBackend::copy_blocks(std::span<const KvLayer> layers, std::span<const BlockCopy> copies) {
  for (const KvLayer& layer : layers) {
    const size_t bytes = kv_block_bytes(layer.shape);
    auto* data = static_cast<std::byte*>(layer.data);
    for (const BlockCopy& copy : copies) {
      OCTAVO_CHECK(copy.source >= 0 && copy.target >= 0, "copy_blocks: from ", copy.source, " to ",
                   copy.target, "; expected block ids");
      std::memmove(data + bytes * static_cast<size_t>(copy.target),
                   data + bytes * static_cast<size_t>(copy.source), bytes);
    }
  }
}

}  // namespace octavo
