"""The C++ engine: tokens in, tokens out. Everything here is implemented in the extension module.

Every function validates its arguments; failures are exceptions of the ``OctavoError`` family. An
object may be used from any thread; calls on one ``Engine`` are serialised.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

class OctavoError(Exception):
    """The base of every error that Octavo raises on purpose."""

class ValidationError(OctavoError, ValueError):
    """A request, parameter or option is outside its range; the engine is unchanged."""

class ModelLoadError(OctavoError, RuntimeError):
    """A model's files are missing, malformed, or do not fit the architecture."""

class OutOfMemoryError(OctavoError, MemoryError):
    """The model, the KV cache or the workspace does not fit in the memory that was given."""

class NotSupportedError(OctavoError, NotImplementedError):
    """The architecture, device or feature is not in this build."""

class InternalError(OctavoError, RuntimeError):
    """An invariant of the engine is broken: a bug. The engine must be closed."""

class StructuredOutputs:
    """What the text of a request must look like."""

    kind: str  # "json_schema", "json_object", "regex", "choice", "grammar", "structural_tag"
    text: str
    choices: list[str]
    any_whitespace: bool
    additional_properties: bool
    def __init__(
        self,
        kind: str,
        text: str = "",
        choices: Sequence[str] = [],
        any_whitespace: bool = True,
        additional_properties: bool = True,
    ) -> None: ...

class SamplingParams:
    """How the tokens of one request are chosen; ranges as in ``octavo.SamplingParams``."""

    n: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int | None  # 0 <= seed < 2**64
    max_tokens: int | None
    min_tokens: int
    ignore_eos: bool
    stop_token_ids: list[int]
    extra_eos_token_ids: list[int]
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logit_bias: dict[int, float]
    allowed_token_ids: list[int]  # empty: all
    bad_words: list[list[int]]  # token sequences that are never completed
    logprobs: int | None  # -1: the whole vocabulary
    logprob_token_ids: list[int]
    prompt_logprobs: int | None
    structured_outputs: StructuredOutputs | None
    repetition_detection: tuple[
        int, int, int
    ]  # max_pattern_size (0: off), min_pattern_size, min_count
    skip_reading_prefix_cache: bool
    # Each is called with the sample's tokens so far (int32 [n], a read-only view) and the logits
    # (float32 [vocab_size], a view to write to), on a thread of the engine.
    logits_processors: list[Callable[[NDArray[np.int32], NDArray[np.float32]], object]]
    def __init__(
        self,
        *,
        n: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        seed: int | None = None,
        max_tokens: int | None = None,
        min_tokens: int = 0,
        ignore_eos: bool = False,
        stop_token_ids: Sequence[int] = [],
        extra_eos_token_ids: Sequence[int] = [],
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repetition_penalty: float = 1.0,
        logit_bias: dict[int, float] = {},
        allowed_token_ids: Sequence[int] = [],
        bad_words: Sequence[Sequence[int]] = [],
        logprobs: int | None = None,
        logprob_token_ids: Sequence[int] = [],
        prompt_logprobs: int | None = None,
        structured_outputs: StructuredOutputs | None = None,
        repetition_detection: tuple[int, int, int] = (0, 0, 0),
        skip_reading_prefix_cache: bool = False,
        logits_processors: Sequence[Callable[..., object]] = [],
    ) -> None: ...

class BeamSearchParams:
    """How the most probable continuations of a prompt are searched."""

    beam_width: int
    max_tokens: int
    length_penalty: float
    early_stopping: str  # "vllm", "true", "false", "never"
    num_return_sequences: int  # 0: beam_width
    num_groups: int
    diversity_penalty: float
    stop: list[str]  # texts that end a beam; needs Engine.set_vocabulary
    stream: bool  # each step's output brings the best beam so far
    tokens: SamplingParams  # ends, penalties, bias, bans, structured_outputs
    def __init__(
        self,
        *,
        beam_width: int,
        max_tokens: int,
        length_penalty: float = 1.0,
        early_stopping: str = "vllm",
        num_return_sequences: int = 0,
        num_groups: int = 1,
        diversity_penalty: float = 0.0,
        stop: Sequence[str] = [],
        stream: bool = False,
        tokens: SamplingParams = ...,
    ) -> None: ...

class Beam:
    """One result of a beam search."""

    @property
    def token_ids(self) -> list[int]: ...  # generated, an end token included
    @property
    def logprob(self) -> float: ...  # the sum over token_ids
    @property
    def score(self) -> float: ...  # logprob / length ** length_penalty
    @property
    def finish_reason(self) -> str | None: ...  # "stop", "length"; None: still alive
    @property
    def stop_token_id(self) -> int | None: ...  # None for the model's own end of sequence
    @property
    def stop_index(self) -> int: ...  # of BeamSearchParams.stop, where one ended it; else -1
    @property
    def logprobs(self) -> list[tuple[list[int], list[float], list[int]]]:
        """For each token the candidates that it was chosen from: ids, log-probabilities, ranks."""

class RequestOutput:
    """What one step produced for one sample of one request."""

    @property
    def request_id(self) -> int: ...
    @property
    def sample_index(self) -> int: ...  # 0..n-1
    @property
    def new_token_ids(self) -> list[int]: ...  # since the last output; a stop token too
    @property
    def prompt_logprobs(
        self,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]] | None:
        """Of the prompt's tokens 1.., with the first output of sample 0: token ids, log-probabilities
        and ranks of all positions one after another, and where each position ends in them.
        The arrays are taken out of the output: a second reading gives None.
        """

    @property
    def logprobs(self) -> list[tuple[list[int], list[float], list[int]]]:
        """Token ids, log-probabilities and ranks for each new token, where they were asked for.

        The new token is first, then the most probable ones in order, or the ids of
        ``logprob_token_ids``; these may name the new token again.
        """

    @property
    def finish_reason(self) -> str | None: ...
    # "stop", "length", "abort", "error", "repetition"
    @property
    def stop_token_id(self) -> int | None: ...  # None for the model's own end of sequence
    @property
    def error(self) -> str: ...  # with finish_reason "error"
    @property
    def num_cached_tokens(self) -> int: ...  # prompt tokens that the prefix cache supplied
    @property
    def request_finished(self) -> bool: ...  # every sample of the request has ended
    @property
    def beams(self) -> list[Beam]:
        """Of a beam search: the results, best first, with the last output; before it, with
        ``stream``, the best beam so far."""

    @property
    def times(self) -> tuple[float, float, float, float, int]:
        """queued, scheduled, first token, last token, in seconds of ``time.monotonic``, 0 where it
        was not reached; and the number of preemptions."""

class ModelInfo:
    """What the loaded model is; fixed after construction."""

    @property
    def architecture(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def quantization(self) -> str: ...  # gguf, int8 or none
    @property
    def kv_cache_dtype(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def isa(self) -> str: ...
    @property
    def num_threads(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def max_model_len(self) -> int: ...  # tokens, prompt and output
    @property
    def num_parameters(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...
    @property
    def kv_cache_bytes(self) -> int: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def num_kv_blocks(self) -> int: ...
    @property
    def block_size(self) -> int: ...  # tokens
    @property
    def eos_token_id(self) -> int | None: ...
    @property
    def config_json(self) -> str: ...

class Engine:
    """The model, its KV cache and every request in flight."""

    def __init__(
        self,
        *,
        model: str,
        device: str = "auto",
        dtype: str = "auto",
        quantization: str = "auto",
        kv_cache_dtype: str = "auto",
        load_format: str = "auto",
        max_model_len: int = 0,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int = 0,
        kv_cache_memory_bytes: int = 0,
        num_kv_blocks: int = 0,
        gpu_memory_utilization: float = 0.9,  # of what is free; above 0, at most 1
        enable_prefix_caching: bool = True,
        enable_chunked_prefill: bool = True,
        num_threads: int = 0,
        max_logprobs: int = 20,  # the most that a request may ask for; -1: no limit
        logprobs_mode: str = "raw_logprobs",
        seed: int = 0,
    ) -> None:
        """Loads the model and allocates the KV cache; 0 means "choose for me"."""

    def add_request(
        self,
        prompt_token_ids: Sequence[int] | NDArray[np.integer[Any]],
        params: SamplingParams,
        cache_salt: str = "",
        owned: set[int] | None = None,
    ) -> int:
        """Queues a prompt of 1..max_model_len-1 ids and returns the request's id.

        The id is also added to ``owned``, before a signal handler can run: whoever is interrupted
        there still knows what to abort.
        Raises ValidationError, changing nothing, when it could never be served.
        """

    def fork(self, parent: int, sample_index: int, params: SamplingParams) -> int:
        """A new request that goes on from one sample of ``parent``, sharing its blocks."""

    def step(self) -> list[RequestOutput]:
        """Runs one step for all requests that fit, with the GIL released."""

    def abort(self, request_id: int) -> bool: ...
    def abort_sample(self, request_id: int, sample_index: int) -> bool: ...
    def has_unfinished_requests(self) -> bool: ...
    def stats(self) -> dict[str, int]: ...
    def validate(
        self, prompt_token_ids: Sequence[int] | NDArray[np.integer[Any]], params: SamplingParams
    ) -> None:
        """Raises what ``add_request`` would raise; never waits for a step."""

    def set_vocabulary(self, token_bytes: Sequence[bytes]) -> None:
        """The bytes that each token adds to a text, empty for special tokens. Once."""

    def has_vocabulary(self) -> bool: ...
    def metrics(self) -> list[dict[str, Any]]:
        """``kind`` ("counter", "gauge", "histogram"), ``name``, ``help``, ``labels``, and ``value``
        or ``buckets`` (a list of bound and count), ``count``, ``sum``."""

    def sleep(self, level: int) -> None: ...
    def wake_up(self, weights: bool = True, kv_cache: bool = True) -> None: ...
    def sleep_level(self) -> int: ...
    @property
    def model_info(self) -> ModelInfo: ...
    def reset_prefix_cache(self) -> None: ...
    def compute_logits(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """The logits of every position, ``[tokens, vocab_size]``."""

class OutputQueue:
    """The outputs of one or more requests of an EngineThread."""

    def __init__(self) -> None: ...
    def take(self, timeout: float | None = None) -> list[RequestOutput]:
        """All that has come; waits for the first, at most ``timeout`` seconds (None: forever).

        Signals are handled while it waits: a KeyboardInterrupt is raised within 50 ms.
        """

    @property
    def fd(self) -> int: ...  # readable while outputs wait; take() clears it

class EngineThread:
    """A thread that steps an engine while there is work. Nothing here waits for a step, but
    ``run_between_steps`` and the end. ``sleep`` and ``wake_up`` of the engine are called through
    ``run_between_steps``, ``step`` by nobody else."""

    def __init__(self, engine: Engine) -> None: ...
    def add_request(
        self,
        prompt_token_ids: Sequence[int] | NDArray[np.integer[Any]],
        params: SamplingParams,
        outputs: OutputQueue,
        cache_salt: str = "",
        owned: set[int] | None = None,
        whole: bool = False,
    ) -> int:
        """As ``Engine.add_request``; the request's outputs go to ``outputs``, where some may be
        before this returns. ``whole``: one for each sample, when it ends."""

    def add_beam_search(
        self,
        prompt_token_ids: Sequence[int] | NDArray[np.integer[Any]],
        params: BeamSearchParams,
        outputs: OutputQueue,
        cache_salt: str = "",
        owned: set[int] | None = None,
    ) -> int:
        """Searches from a prompt. Its outputs have sample_index 0."""

    def abort(self, request_id: int) -> None: ...
    def abort_sample(self, request_id: int, sample_index: int) -> None: ...
    def run_between_steps(self, function: Callable[[], object]) -> None:
        """Calls ``function`` on the thread between two steps; raises what it raises. Not from such
        a function or a logits processor."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    @property
    def paused(self) -> bool: ...
    def num_unfinished(self) -> int: ...
    def stats(self) -> dict[str, int]: ...
    def close(self) -> None:
        """Aborts what is in flight, waits for the step in progress and ends the thread. Further
        calls raise OctavoError. The last output of each sample in flight has ``finish_reason``
        "abort" and says why in ``error``. Not from a function between steps or a logits
        processor."""

def read_gguf_metadata(path: str) -> dict[str, bool | int | float | str | list[Any]]:
    """The metadata of a GGUF file, without its tensors. Raises ModelLoadError."""

def cpu_isas() -> list[str]:
    """The instruction sets that the CPU back end can use here, best first."""

def default_num_threads() -> int: ...
