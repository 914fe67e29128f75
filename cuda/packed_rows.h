// Rows to sample as the device reads them: one block of bytes for all rows of a call, and where
// their results will lie. Made by the sampler, on the step thread.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "backend/op_args.h"
#include "launch/sample.h"

namespace octavo::cuda {

// Whether the host has to sample this row.
bool needs_host(const SampleRow& row, bool wanted, int64_t vocab);
// Whether the row's token is the largest logit, and nothing else is asked for.
bool is_plain(const SampleRow& row, bool wanted);

class PackedRows {
 public:
  // Forgets all rows. Room for `rows` of them.
  void clear(size_t rows, int64_t vocab);
  // `index`: of the logits. `wanted`: its log-probabilities are; otherwise what the row says of
  // them does not count. `copy`: where the row is kept as it was before its edits, or -1.
  void add(const SampleRow& row, int32_t index, bool wanted, int32_t copy);

  size_t count() const { return rows_; }
  std::span<const unsigned char> bytes() const { return bytes_; }
  PackedRow row(size_t i) const;
  size_t result_bytes() const { return result_bytes_; }

  // Whether a row that is asked for its log-probabilities has to be kept as it was.
  static bool needs_copy(const SampleRow& row, bool wanted);

 private:
  template <typename T>
  uint32_t append(std::span<const T> values);
  uint32_t append_mask(const LogitEdits& edits);
  void pack_edits(const LogitEdits& edits, PackedRow& packed);
  void pack_request(const LogprobRequest& request, PackedRow& packed);

  size_t rows_ = 0;
  int64_t vocab_ = 0;
  size_t result_bytes_ = 0;
  std::vector<unsigned char> bytes_;
};

// What row_logprobs.cc would have returned; empty where there is no token.
TokenLogprobs unpack_result(const PackedResult* result, bool by_ids, bool logits);

}  // namespace octavo::cuda
