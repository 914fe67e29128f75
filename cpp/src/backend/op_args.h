// The arguments of the back end's words. All tensors are on the back end's device. Activations are
// of Backend::activation_dtype(); `tokens` is the number of rows of the step's ragged batch.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "backend/packed_weight.h"
#include "octavo/request_output.h"
#include "octavo/sampling_params.h"
#include "tensor/tensor.h"

namespace octavo {

enum class Activation : uint8_t {
  kNone,
  kRelu,
  kSilu,      // x * sigmoid(x)
  kGelu,      // x * Phi(x), by erf
  kGeluTanh,  // the tanh approximation: "gelu_new", "gelu_pytorch_tanh"
};

// out[t] = table[ids[t] + offset], or += with accumulate.
struct EmbedArgs {
  Tensor ids;                 // int32 [tokens]
  const PackedWeight* table;  // [vocab, hidden]
  int32_t offset = 0;
  bool accumulate = false;
  Tensor out;  // [tokens, hidden]
};

// out = activation(x * weight^T + bias), and then += residual where one is given (out may be
// residual).
struct LinearArgs {
  Tensor x;                    // [tokens, in]
  const PackedWeight* weight;  // [out, in]
  Tensor bias;                 // float32 [out], or none
  Activation activation = Activation::kNone;
  Tensor residual;  // [tokens, out], or none
  Tensor out;       // [tokens, out]; without a residual it may be float32 whatever x is (logits)
};

// out = x / sqrt(mean(x^2) + eps) * weight
struct RmsNormArgs {
  Tensor x;       // [tokens, hidden]
  Tensor weight;  // float32 [hidden]
  float eps;
  Tensor out;  // [tokens, hidden], may be x
};

// out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
struct LayerNormArgs {
  Tensor x;       // [tokens, hidden]
  Tensor weight;  // float32 [hidden]
  Tensor bias;    // float32 [hidden], or none
  float eps;
  Tensor out;  // [tokens, hidden], may be x
};

// out = activation(gate) * up
struct GateArgs {
  Tensor gate;  // [tokens, intermediate]
  Tensor up;    // [tokens, intermediate]
  Activation activation;
  Tensor out;  // [tokens, intermediate], may be gate
};

// out = residual + linear(down, activation(linear(gate, x)) * linear(up, x))
struct GatedMlpArgs {
  Tensor x;                     // [tokens, hidden]
  const PackedWeight* gate_up;  // [2 * intermediate, hidden], gate first
  Tensor gate_up_bias;          // float32 [2 * intermediate], or none
  const PackedWeight* down;     // [hidden, intermediate]
  Tensor down_bias;             // float32 [hidden], or none
  Activation activation;
  Tensor scratch;   // [tokens, 2 * intermediate]
  Tensor residual;  // [tokens, hidden], or none
  Tensor out;       // [tokens, hidden], may be residual
};

// The keys and values of one layer, in the back end's own layout: num_blocks blocks of
// Backend::kv_block_bytes(shape) bytes each.
struct KvShape {
  int32_t block_size;  // tokens
  int32_t kv_heads;
  int32_t head_dim;
  DType dtype;
};
struct KvLayer {
  void* data = nullptr;
  KvShape shape{};
};

// Rotates q and k in place and stores k and v into the slots of the cache. Rotation pairs element i
// with i + rotary_dim / 2 (the "neox" form): x[i] * cos - x[i + half] * sin, and
// x[i + half] * cos + x[i] * sin.
struct RopeStoreArgs {
  Tensor q;             // [tokens, heads, head_dim]
  Tensor k;             // [tokens, kv_heads, head_dim]
  Tensor v;             // [tokens, kv_heads, head_dim]
  Tensor cos_sin;       // float32 [rows, rotary_dim]: cosines, then sines; none: no rotation
  Tensor cos_sin_rows;  // int32 [tokens]: the row of each token
  Tensor slots;         // int32 [tokens]: block * block_size + place in the block; -1: of a row
                        // that only pads the step, which is not stored
  KvLayer kv;
};

// Causal attention of the step's tokens over their sequences' blocks. Query head h reads KV head
// h / (heads / kv_heads). The ragged batch is that of the last begin_step.
struct AttentionArgs {
  Tensor q;  // [tokens, heads, head_dim]
  KvLayer kv;
  float scale;
  int32_t window = 0;  // a token sees itself and window - 1 tokens before it; 0: all
  Tensor out;          // [tokens, heads * head_dim]
};

// The ragged batch of a step. Host memory that stays valid during the step.
struct StepMeta {
  int32_t num_tokens = 0;
  int32_t block_size = 0;
  std::span<const int32_t> query_start;   // [sequences + 1]: rows of the batch
  std::span<const int32_t> context_len;   // [sequences]: tokens with keys, this step's included;
                                          // 0: a sequence that only pads the step
  std::span<const int32_t> block_tables;  // [sequences, max_blocks]
  int32_t max_blocks = 0;
  int32_t num_sequences() const { return static_cast<int32_t>(context_len.size()); }
};

struct GatherRowsArgs {
  Tensor x;     // [tokens, hidden]
  Tensor rows;  // int32 [selected]
  Tensor out;   // [selected, hidden]
};

// How often a token occurs in a sequence.
struct TokenCount {
  int32_t token_id;
  int32_t in_output;
  bool in_prompt;
};

// What is done to one row of logits before it is drawn from, in this order: bias is added; ids that
// the mask lacks, that are not allowed or are banned become -infinity; repetition, then frequency
// and presence penalties; ids that would complete a bad word become -infinity; the custom edit.
struct LogitEdits {
  std::span<const TokenBias> bias;
  std::span<const int32_t> allowed;  // sorted; empty: all
  std::span<const int32_t> banned;   // end tokens, until min_tokens are there
  float repetition_penalty = 1.0f;
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;
  std::span<const TokenCount> counts;  // of the sequence's tokens, each once, for the penalties
  std::span<const int32_t> bad;        // last ids of the bad words that the sequence has begun
  // A bit an id, of word id / 32 the bit id % 32: set where it may come. Empty: all may.
  std::span<const uint32_t> mask;
  // The caller's own edit, on the host, of the row's logits [vocab]; false: the row has no token.
  const std::function<bool(std::span<float>)>* custom = nullptr;
};

// Which log-probabilities of a row are wanted: of the drawn token, then of the `top` most probable
// ones (ties by the lower id), or of `ids`.
struct LogprobRequest {
  bool wanted = false;
  bool processed = false;  // after the edits and the temperature, not of the model's own logits
  bool logits = false;     // the logits themselves, not their log-softmax
  int32_t top = 0;         // -1: the whole vocabulary
  std::span<const int32_t> ids;
};

// How one row of logits becomes a token. Stages in this order: edits, temperature, min_p, top_k
// (ties with the k-th are kept), top_p; then the inverse of the kept tokens' distribution function,
// in the order of ids, at philox_uniform(seed, sample_index, position).
struct SampleRow {
  float temperature = 0.0f;  // 0: greedy, the lowest id among the largest logits
  float top_p = 1.0f;
  float min_p = 0.0f;
  int32_t top_k = 0;  // 0: off
  uint64_t seed = 0;
  uint32_t sample_index = 0;
  uint32_t position = 0;  // of the token that is chosen
  LogitEdits edits;
  LogprobRequest logprobs;
  int32_t given = -1;  // not negative: nothing is drawn, this token's log-probabilities are wanted
};

// out[r] is the chosen id, or -1 where the logits hold a NaN, all are -infinity, or the custom edit
// gave up.
struct SampleArgs {
  Tensor logits;  // float32 [rows, vocab]; may be overwritten
  std::span<const SampleRow> rows;
  Tensor out;                         // int32 [rows]
  std::span<TokenLogprobs> logprobs;  // host memory [rows]; empty: no row wants any
};

struct BlockCopy {
  int32_t source;
  int32_t target;
};

}  // namespace octavo
