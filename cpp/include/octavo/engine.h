// The engine: owns the model, the KV cache and every request in flight. Requests are added at any
// time and advance together, one ragged batch a step. Every method may be called from any thread;
// calls are serialised, so a call during step() waits for that step to end.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "octavo/beam_search.h"
#include "octavo/engine_config.h"
#include "octavo/error.h"
#include "octavo/export.h"
#include "octavo/metrics.h"
#include "octavo/request_output.h"
#include "octavo/sampling_params.h"

namespace octavo {

// What the loaded model is. Fixed after construction.
struct OCTAVO_EXPORT ModelInfo {
  std::string architecture;  // the name in config.json, such as "LlamaForCausalLM"
  std::string dtype;         // of the weights in memory, such as "bfloat16"
  std::string quantization;  // "gguf", "int8", or "none"
  std::string kv_cache_dtype;
  std::string device;  // "cpu" or "ref"
  std::string isa;     // the instruction set that the kernels use, such as "avx512"
  int32_t num_threads = 0;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  int64_t max_model_len = 0;  // tokens, prompt and output
  int64_t num_parameters = 0;
  int64_t weight_bytes = 0;
  int64_t kv_cache_bytes = 0;
  int64_t workspace_bytes = 0;  // activations of one step
  int64_t num_kv_blocks = 0;
  int32_t block_size = 0;               // tokens
  std::optional<int32_t> eos_token_id;  // the model's end of sequence, where its files name one
  std::string config_json;              // the model's configuration in Hugging Face's form
};

// Counters. Gauges (the first group) are of the moment, the others count since construction.
struct OCTAVO_EXPORT EngineStats {
  int64_t num_running = 0;  // sequences
  int64_t num_waiting = 0;
  int64_t num_blocks_used = 0;  // referenced by sequences
  int64_t num_blocks_total = 0;

  int64_t num_steps = 0;
  int64_t num_preemptions = 0;
  int64_t num_recomputed_tokens = 0;  // computed again after a preemption
  int64_t num_prompt_tokens = 0;      // of the requests that were accepted
  int64_t num_generated_tokens = 0;
  int64_t num_scheduled_tokens = 0;  // rows of all steps
  int64_t prefix_cache_queries = 0;  // tokens looked up
  int64_t prefix_cache_hits = 0;     // tokens found
  int64_t num_requests_finished = 0;
  int64_t num_requests_aborted = 0;
};

class OCTAVO_EXPORT Engine {
 public:
  // Loads the model and allocates the KV cache. Throws LoadError, NotSupported, OutOfMemory or
  // InvalidArgument.
  explicit Engine(const EngineConfig& config);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Adds a request for `params.n` samples of `prompt_token_ids` (1..max_model_len-1 ids, each in
  // the vocabulary) and returns its id, never used before. Throws InvalidArgument, and changes
  // nothing, when a value is out of range or the request could never fit in the KV cache.
  RequestId add_request(std::span<const int32_t> prompt_token_ids, const SamplingParams& params,
                        std::string_view cache_salt = {});

  // Adds a search for the most probable continuations of the prompt. Its outputs have sample index
  // 0; the last one brings the beams. Throws as add_request.
  RequestId add_beam_search(std::span<const int32_t> prompt_token_ids,
                            const BeamSearchParams& params, std::string_view cache_salt = {});

  // Throws what add_request would throw for these values. Changes nothing and never waits for a
  // step; begins to compile the grammar of structured outputs.
  void validate(std::span<const int32_t> prompt_token_ids, const SamplingParams& params) const;
  void validate(std::span<const int32_t> prompt_token_ids, const BeamSearchParams& params) const;

  // The bytes that each token adds to a text, at most vocab_size of them; empty: a special token,
  // which no structure can hold. Structured outputs need it. May be called once; throws
  // InvalidArgument for a second time, or where there are too many.
  void set_vocabulary(std::vector<std::string> token_bytes);
  bool has_vocabulary() const;

  // A new request that goes on from sample `sample_index` of `parent`: its prompt is the parent's
  // prompt and tokens so far, whose computed blocks it shares copy-on-write. The parent must be in
  // flight; it is unchanged. Throws InvalidArgument.
  RequestId fork(RequestId parent, int32_t sample_index, const SamplingParams& params);

  // Runs one step for all requests that fit, and returns what it produced, ordered by request and
  // sample. An empty result means only that no sample got a token (a prompt in chunks).
  std::vector<RequestOutput> step();

  // Ends a request now and frees its blocks; it produces no further output. False when there is
  // no such request in flight.
  bool abort(RequestId id);
  // Ends one sample of a request (a stop string was found in its text); the others go on.
  bool abort_sample(RequestId id, int32_t sample_index);

  bool has_unfinished_requests() const;
  EngineStats stats() const;
  // Counters, gauges and histograms by vLLM's names.
  std::vector<Metric> metrics() const;
  const ModelInfo& model_info() const;

  // Forgets the cached prefixes of finished requests.
  void reset_prefix_cache();

  // Gives memory back: level 1 the KV cache, level 2 the weights too. Requests in flight lose their
  // computed tokens, not their progress: they are computed again after wake_up. While it sleeps,
  // requests are accepted and step() throws Error. Throws InvalidArgument for another level.
  void sleep(int32_t level);
  // Takes the memory again (weights are read from the model's files): what the flags name of what
  // sleeps. Throws OutOfMemory or LoadError, and then still sleeps.
  void wake_up(bool weights = true, bool kv_cache = true);
  int32_t sleep_level() const;  // 0: awake

  // The float32 logits of every position of `token_ids`, row-major [tokens, vocab_size], computed
  // in chunks of at most max_num_seqs tokens through the paged KV cache, outside the queue: for
  // evaluation and tests. Throws InvalidArgument for ids or a length out of range, OutOfMemory when
  // the requests in flight leave too few free blocks.
  std::vector<float> compute_logits(std::span<const int32_t> token_ids);

 private:
  struct OCTAVO_HIDDEN Impl;
  std::unique_ptr<Impl> impl_;
};

// The instruction sets that the CPU back end can use on this machine, best first, such as
// {"avx512", "avx2", "generic"}. OCTAVO_ISA in the environment forces one.
OCTAVO_EXPORT std::vector<std::string> cpu_isas();
// The number of threads that an engine takes by default on this machine.
OCTAVO_EXPORT int32_t default_num_threads();

}  // namespace octavo
