// Launchers of sampling: what cuda/sampler.cc puts together. Step thread; asynchronous on `stream`.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace octavo::cuda {

// Greedy rows, with no edits and no log-probabilities: out[r] is the lowest id among the largest
// logits; -1 where there is a NaN, or nothing above -infinity.
struct Argmax {
  const float* logits;  // [rows, vocab]
  int64_t stride;       // of rows
  int64_t rows, vocab;
  uint64_t* best;  // device memory [rows], all 0 before and after
  uint32_t* done;  // device memory [rows], all 0 before and after
  int32_t* out;    // [rows]
};
void launch_argmax(const Argmax& args, cudaStream_t stream);

// A row of the general kernel, in one upload with the lists of its edits. Places are in bytes from
// the start of the upload, or of the results.
struct PackedRow {
  double uniform;  // the draw, in [0, 1)
  float temperature, top_p, min_p;
  int32_t top_k;
  float repetition_penalty, frequency_penalty, presence_penalty;
  int32_t given;  // negative: a token is drawn
  int32_t row;    // of logits and out
  int32_t copy;   // of `copies`: the row as it was before its edits; -1: none
  uint32_t bias_at, counts_at, banned_at, bad_at, mask_at, ids_at;
  int32_t num_bias, num_counts, num_banned, num_bad;
  int32_t mask_words;         // 0: no mask
  int32_t num_ids, top;       // log-probabilities of these ids, or of so many of the best
  uint32_t result_at;         // a PackedResult and what follows it
  uint8_t has_edits;          // any of the lists
  uint8_t wanted;             // log-probabilities are
  uint8_t processed, scaled;  // of the edited and filtered row; a sum of exponentials is needed
  uint32_t padding;
};
static_assert(sizeof(PackedRow) % 8 == 0);

struct PackedBias {
  int32_t token_id;
  float bias;
};
struct PackedCount {
  int32_t token_id;
  uint32_t counts;  // 2 * in_output + in_prompt
};

// Then: int32 ids[count], float values[count], and int32 ranks[count] of ids that were asked for.
struct PackedResult {
  double sum;  // of exp(value - max), in the order of backend/row_logprobs.cc
  float max;
  int32_t token;  // -1: the rest means nothing
  float token_value;
  int32_t token_rank;
  int32_t count;
  int32_t last_rank;  // of the last of the best
};
static_assert(sizeof(PackedResult) % 8 == 0);

inline constexpr int32_t kMostLogprobs = 1024;  // of a row, on the device
inline constexpr int64_t kMostSampledVocab = int64_t{1} << 19;

struct SampleRows {
  float* logits;        // [any, vocab]; edits are written to it
  int64_t stride;       // of rows
  int64_t vocab;        // at most kMostSampledVocab
  const void* upload;   // device memory: PackedRow [any], and what they point to
  int64_t first, rows;  // of the PackedRows
  float* copies;        // [any, vocab], or null where no row wants one
  void* results;        // device memory
  int32_t* out;
};
void launch_sample_rows(const SampleRows& args, cudaStream_t stream);

}  // namespace octavo::cuda
