// A ragged batch of sequences on paged blocks, run on a back end through the words that models use:
// earlier tokens by rope_store, then a step of begin_step, rope_store and attention. Blocks lie in
// shuffled order, and every slot that no token has is NaN.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "base/check.h"
#include "ops/backends.h"
#include "ops/device_matrix.h"
#include "ops/random.h"
#include "ops/weights.h"

namespace octavo::test {

struct SequenceShape {
  int32_t computed;     // tokens whose keys are stored before the step
  int32_t scheduled;    // tokens of the step
  uint64_t seed = 0;    // of the data: equal sequences in different batches; 0: by place
  bool broken = false;  // its first value is NaN
};
// A row that only pads the step: it has no context, its slot is -1.
inline constexpr SequenceShape kPadding{-1, 1};

enum class Rotation {
  kNone,
  kAngles,  // of the usual frequencies
  kTurns,   // quarter turns, which round nothing: keys that are rounded again stay comparable
};

struct RaggedCase {
  int32_t heads, kv_heads, head_dim;
  DType kv_dtype = DType::kFloat32;
  std::vector<SequenceShape> sequences;
  Rotation rotation = Rotation::kNone;
  int32_t rotary_dim = 0;  // 0: head_dim
  int32_t window = 0;
  int32_t block_size = 16;
  float scale = 0.0f;        // 0: 1 / sqrt(head_dim)
  uint64_t layout_seed = 1;  // of the blocks' order
  int32_t spare_blocks = 3;  // that no sequence owns
  DType dtype =
      DType::kFloat32;  // of the activations, where the back end has them in more than one

  int32_t rotary() const { return rotary_dim == 0 ? head_dim : rotary_dim; }
  float used_scale() const {
    return scale != 0.0f ? scale : 1.0f / std::sqrt(static_cast<float>(head_dim));
  }
  int64_t num_tokens() const {
    int64_t total = 0;
    for (const SequenceShape& sequence : sequences) total += sequence.scheduled;
    return total;
  }
  int32_t longest_context() const {
    int32_t longest = 0;
    for (const auto& [computed, scheduled, seed, broken] : sequences) {
      longest = std::max(longest, computed + scheduled);
    }
    return longest;
  }
  std::string name() const {
    std::string text =
        str_cat(dtype_name(dtype), " heads ", heads, "/", kv_heads, " x ", head_dim, " kv ",
                dtype_name(kv_dtype), " rotation ", static_cast<int>(rotation), " of ", rotary(),
                " window ", window, " blocks of ", block_size, " tokens");
    for (const SequenceShape& sequence : sequences) {
      text += str_cat(" ", sequence.computed, "+", sequence.scheduled);
    }
    return text;
  }
};

inline bool kv_rounds(DType kv) { return kv == DType::kBFloat16 || kv == DType::kInt8; }

// One sequence's vectors before rotation. A position has the same ones however long the sequence
// is. Tokens that were computed before have no q.
struct SequenceData {
  SequenceData(const RaggedCase& c, size_t place) {
    const SequenceShape& shape = c.sequences[place];
    const uint64_t seed = shape.seed != 0 ? shape.seed : 1000 + place;
    // Numbers that bfloat16 holds, for the back ends that round q to a cache of it.
    const DType q_dtype = kv_rounds(c.kv_dtype) ? DType::kBFloat16 : DType::kFloat32;
    for (int32_t position = 0; position < shape.computed + shape.scheduled; ++position) {
      Random random(seed * 1000003 + static_cast<uint64_t>(position));
      const auto vectors = [&](int32_t heads, DType dtype) {
        return rounded(random.nearly_normals(heads * c.head_dim), dtype);
      };
      k.push_back(vectors(c.kv_heads, c.dtype));
      v.push_back(vectors(c.kv_heads, c.dtype));
      q.push_back(position < shape.computed
                      ? std::vector<float>()
                      : vectors(c.heads, c.dtype == DType::kFloat32 ? q_dtype : c.dtype));
    }
    if (shape.broken) v.at(0).at(0) = std::numeric_limits<float>::quiet_NaN();
  }
  std::vector<std::vector<float>> q, k, v;  // [context][heads or kv_heads * head_dim]
};

// A token of a batch.
struct BatchToken {
  size_t sequence;
  int32_t position;  // -1: it only pads
};

// [positions, rotary_dim]: cosines, then sines.
inline std::vector<float> cos_sin_table(const RaggedCase& c) {
  std::vector<float> table;
  const int32_t half = c.rotary() / 2;
  for (int32_t position = 0; position < std::max(c.longest_context(), 1); ++position) {
    for (int32_t i = 0; i < c.rotary(); ++i) {
      const bool sine = i >= half;
      const double angle = position * std::pow(10000.0, -2.0 * (i % half) / c.rotary());
      const int turn = (position + i % half) % 4;
      const float quarter =
          static_cast<float>(sine ? (turn == 1) - (turn == 3) : (turn == 0) - (turn == 2));
      const auto exact = static_cast<float>(sine ? std::sin(angle) : std::cos(angle));
      table.push_back(c.rotation == Rotation::kTurns ? quarter : exact);
    }
  }
  return table;
}

// Gives each sequence blocks in shuffled order, with spare ones that nobody owns. Places of the
// tables that no sequence needs are -1, which no back end may follow.
struct BlockLayout {
  explicit BlockLayout(const RaggedCase& c) {
    const int32_t size = c.block_size;
    max_blocks = (c.longest_context() + size - 1) / size + 1;
    int32_t used = 0;
    for (const auto& [computed, scheduled, seed, broken] : c.sequences) {
      used += (computed + scheduled + size - 1) / size;
    }
    num_blocks = used + c.spare_blocks;
    const std::vector<int32_t> order = Random(c.layout_seed).permutation(num_blocks);
    int32_t next = 0;
    for (const auto& [computed, scheduled, seed, broken] : c.sequences) {
      const int32_t needed = (computed + scheduled + size - 1) / size;
      for (int32_t i = 0; i < max_blocks; ++i) tables.push_back(i < needed ? order[next + i] : -1);
      next += needed;
    }
    spare.assign(order.begin() + next, order.end());
  }
  int32_t slot(int32_t block_size, size_t sequence, int32_t position) const {
    if (position < 0) return -1;
    const int32_t block = tables[sequence * max_blocks + position / block_size];
    return block * block_size + position % block_size;
  }

  int32_t num_blocks, max_blocks;
  std::vector<int32_t> tables;  // [sequences, max_blocks]
  std::vector<int32_t> spare;
};

struct StepResult {
  std::vector<float> q;          // [tokens, heads * head_dim], rotated
  std::vector<float> k;          // [tokens, kv_heads * head_dim], rotated
  std::vector<float> attention;  // [tokens, heads * head_dim]
};

class RaggedRun {
 public:
  RaggedRun(Backend& backend, const RaggedCase& c)
      : backend_(backend),
        c_(c),
        blocks_(c),
        cos_sin_(backend, std::max(c.longest_context(), 1), c.rotary(), cos_sin_table(c)) {
    for (size_t i = 0; i < c.sequences.size(); ++i) data_.emplace_back(c, i);
    shape_ = {c.block_size, c.kv_heads, c.head_dim, c.kv_dtype};
    cache_ =
        backend.allocate(backend.kv_block_bytes(shape_) * static_cast<size_t>(blocks_.num_blocks));
    store_garbage();
    store_computed();
  }

  StepResult step(Layout layout = Layout::kDense) {
    std::vector<int32_t> query_start = {0}, context_len;
    for (const auto& [computed, scheduled, seed, broken] : c_.sequences) {
      query_start.push_back(query_start.back() + scheduled);
      context_len.push_back(computed + scheduled);
    }
    begin(query_start, context_len, blocks_.tables);
    const DeviceMatrix qkv = store(step_tokens(), layout);
    std::vector<float> attended = attend(qkv, layout);
    return split(qkv.download(), std::move(attended));
  }

  // Attention of some of the step's tokens alone, each as a sequence of one row on the blocks of
  // its own: what step() gives, without computing all of it.
  std::vector<float> tokens_alone(const std::vector<BatchToken>& chosen) {
    store(step_tokens(), Layout::kDense);
    std::vector<int32_t> query_start = {0}, context_len, tables;
    for (const auto& [sequence, position] : chosen) {
      query_start.push_back(query_start.back() + 1);
      context_len.push_back(position + 1);
      const auto table =
          blocks_.tables.begin() + static_cast<int64_t>(sequence) * int64_t{blocks_.max_blocks};
      tables.insert(tables.end(), table, table + blocks_.max_blocks);
    }
    begin(query_start, context_len, tables);
    return attend(store(chosen, Layout::kDense), Layout::kDense);
  }

  std::vector<BatchToken> step_tokens() const {
    std::vector<BatchToken> tokens;
    for (size_t i = 0; i < c_.sequences.size(); ++i) {
      const auto [computed, scheduled, seed, broken] = c_.sequences[i];
      for (int32_t p = computed; p < computed + scheduled; ++p) tokens.push_back({i, p});
    }
    return tokens;
  }

  BlockLayout& blocks() { return blocks_; }
  KvLayer kv() const { return {.data = cache_.data(), .shape = shape_}; }

 private:
  static constexpr size_t kRowsAtOnce = 4096;  // for the host's memory

  int64_t qkv_size() const { return (c_.heads + 2 * c_.kv_heads) * c_.head_dim; }
  DType dtype() const { return backend_.activation_dtype(c_.dtype); }

  void begin(const std::vector<int32_t>& query_start, const std::vector<int32_t>& context_len,
             const std::vector<int32_t>& tables) {
    backend_.begin_step({.num_tokens = query_start.back(),
                         .block_size = c_.block_size,
                         .query_start = query_start,
                         .context_len = context_len,
                         .block_tables = tables,
                         .max_blocks = blocks_.max_blocks});
  }

  std::vector<float> attend(const DeviceMatrix& qkv, Layout layout) const {
    const int64_t q_size = c_.heads * c_.head_dim;
    const DeviceMatrix out(backend_, qkv.view.dim(0), q_size, beside(layout), dtype());
    backend_.attention({.q = qkv.view.columns(0, q_size).split_last(c_.heads),
                        .kv = kv(),
                        .scale = c_.used_scale(),
                        .window = c_.window,
                        .out = out.view});
    return out.download();
  }

  // rope_store of q, k and v as columns of one matrix, as a fused projection leaves them.
  void rope_store(const DeviceMatrix& qkv, const std::vector<int32_t>& slots,
                  const std::vector<int32_t>& positions, bool rotate) {
    const int64_t q_size = c_.heads * c_.head_dim, kv_size = c_.kv_heads * c_.head_dim;
    const DeviceVector<int32_t> device_slots(backend_, slots), rows(backend_, positions);
    const auto part = [&](int64_t begin, int64_t size, int64_t heads) {
      return qkv.view.columns(begin, begin + size).split_last(heads);
    };
    backend_.rope_store({.q = part(0, q_size, c_.heads),
                         .k = part(q_size, kv_size, c_.kv_heads),
                         .v = part(q_size + kv_size, kv_size, c_.kv_heads),
                         .cos_sin = rotate ? cos_sin_.view : Tensor(),
                         .cos_sin_rows = rotate ? rows.view : Tensor(),
                         .slots = device_slots.view,
                         .kv = kv()});
  }

  void store_garbage() {
    const int64_t rows = int64_t{blocks_.num_blocks} * c_.block_size;
    std::vector<int32_t> slots(static_cast<size_t>(rows));
    std::iota(slots.begin(), slots.end(), 0);
    for (size_t begin = 0; begin < slots.size(); begin += kRowsAtOnce) {
      const size_t end = std::min(begin + kRowsAtOnce, slots.size());
      const std::vector<int32_t> some(slots.begin() + static_cast<int64_t>(begin),
                                      slots.begin() + static_cast<int64_t>(end));
      const DeviceMatrix qkv(backend_, static_cast<int64_t>(some.size()), qkv_size(),
                             Layout::kDense, dtype());  // starts as NaN
      rope_store(qkv, some, some, false);
    }
  }

  void store_computed() {
    std::vector<BatchToken> tokens;
    for (size_t i = 0; i < c_.sequences.size(); ++i) {
      for (int32_t p = 0; p < c_.sequences[i].computed; ++p) {
        if (tokens.size() == kRowsAtOnce) store(tokens, Layout::kDense), tokens.clear();
        tokens.push_back({i, p});
      }
    }
    store(tokens, Layout::kDense);
  }

  DeviceMatrix store(const std::vector<BatchToken>& tokens, Layout layout) {
    const int64_t q_size = c_.heads * c_.head_dim, kv_size = c_.kv_heads * c_.head_dim;
    std::vector<float> values(tokens.size() * static_cast<size_t>(qkv_size()), 1.0f);
    std::vector<int32_t> slots, positions;
    auto row = values.begin();
    for (const auto& [sequence, position] : tokens) {
      const SequenceData& data = data_[sequence];
      if (position >= 0) {
        std::ranges::copy(data.q[position], row);  // none: ones, which nobody reads
        std::ranges::copy(data.k[position], row + q_size);
        std::ranges::copy(data.v[position], row + q_size + kv_size);
      }
      row += qkv_size();
      slots.push_back(blocks_.slot(c_.block_size, sequence, position));
      positions.push_back(std::max(position, 0));
    }
    DeviceMatrix qkv(backend_, static_cast<int64_t>(tokens.size()), qkv_size(), values, layout,
                     dtype());
    rope_store(qkv, slots, positions, c_.rotation != Rotation::kNone);
    return qkv;
  }

  StepResult split(const std::vector<float>& qkv, std::vector<float> attention) const {
    StepResult result{.attention = std::move(attention)};
    const int64_t q_size = c_.heads * c_.head_dim, kv_size = c_.kv_heads * c_.head_dim;
    for (size_t i = 0; i < qkv.size(); ++i) {
      const int64_t column = static_cast<int64_t>(i) % qkv_size();
      if (column < q_size) result.q.push_back(qkv[i]);
      if (column >= q_size && column < q_size + kv_size) result.k.push_back(qkv[i]);
    }
    return result;
  }

  Backend& backend_;
  RaggedCase c_;
  BlockLayout blocks_;
  DeviceMatrix cos_sin_;  // [positions, rotary_dim]
  std::vector<SequenceData> data_;
  KvShape shape_;
  Buffer cache_;
};

inline StepResult run_step(Backend& backend, const RaggedCase& c, Layout layout = Layout::kDense) {
  return RaggedRun(backend, c).step(layout);
}

}  // namespace octavo::test
