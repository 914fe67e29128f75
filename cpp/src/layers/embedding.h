// A table of vectors looked up by token id or by position. Owned by a model, immutable after
// loading.
#pragma once

#include <memory>

#include "layers/forward_context.h"

namespace octavo {

class Embedding {
 public:
  Embedding() = default;
  // Row ids[t] + offset of the table is the vector of token t (OPT's positions begin at row 2).
  explicit Embedding(std::shared_ptr<const PackedWeight> table, int32_t offset = 0)
      : table_(std::move(table)), offset_(offset) {}

  explicit operator bool() const { return table_ != nullptr; }
  int64_t dim() const { return table_->in_features(); }
  const std::shared_ptr<const PackedWeight>& table() const { return table_; }

  // out [tokens, dim] = table[ids [tokens] + offset]
  void lookup(const ForwardContext& context, const Tensor& ids, const Tensor& out) const {
    run(context, ids, out, false);
  }
  // out [tokens, dim] += table[ids [tokens] + offset]
  void add(const ForwardContext& context, const Tensor& ids, const Tensor& out) const {
    run(context, ids, out, true);
  }

 private:
  void run(const ForwardContext& context, const Tensor& ids, const Tensor& out,
           bool accumulate) const {
    context.backend.embed({.ids = ids,
                           .table = table_.get(),
                           .offset = offset_,
                           .accumulate = accumulate,
                           .out = out});
  }

  std::shared_ptr<const PackedWeight> table_;  // [rows, dim]
  int32_t offset_ = 0;
};

}  // namespace octavo
