"""A stand-in for the compiled engine, whose replies a test writes down: the Python package's tests
need no model and no luck.

`FakeEngine` is put in the place of `_core.Engine` by the fixture-like `use`, with an engine thread
that steps it where its caller waits for outputs, so that a test sees the same steps each time, or,
with `threaded`, in a thread. With
OCTAVO_TEST_FAKE_CORE=1 in the environment, importing this module also provides the rest of
`octavo._core`, so that these tests run before the extension is built.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


def _provide_module() -> None:
    """Installs a module `octavo._core` with the exceptions and plain values of the real one."""
    core = types.ModuleType("octavo._core")
    base = type("OctavoError", (Exception,), {})
    builtins = {
        "ValidationError": ValueError,
        "ModelLoadError": RuntimeError,
        "OutOfMemoryError": MemoryError,
        "NotSupportedError": NotImplementedError,
        "InternalError": RuntimeError,
    }
    core.OctavoError = base
    for name, builtin in builtins.items():
        setattr(core, name, type(name, (base, builtin), {}))
    core.__version__ = "0.0.0"
    core.__file__ = __file__
    core.SamplingParams = FakeSamplingParams
    core.BeamSearchParams = FakeBeamSearchParams
    core.StructuredOutputs = FakeStructuredOutputs
    core.Engine = FakeEngine
    core.EngineThread = FakeEngineThread
    core.OutputQueue = FakeOutputQueue
    core.cpu_isas = lambda: ["avx2", "generic"]
    core.default_num_threads = lambda: 2
    core.read_gguf_metadata = _read_gguf_metadata
    sys.modules["octavo._core"] = core


def _read_gguf_metadata(path: str) -> dict[str, Any]:
    from gguf import GGUFReader
    from octavo.errors import ModelLoadError

    try:
        reader = GGUFReader(path)
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path}: {error}") from error
    return {name: entry.contents() for name, entry in reader.fields.items()}


@dataclass
class FakeSamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stop_token_ids: list[int] = field(default_factory=list)
    extra_eos_token_ids: list[int] = field(default_factory=list)
    prompt_logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    allowed_token_ids: list[int] = field(default_factory=list)
    bad_words: list[list[int]] = field(default_factory=list)
    logprobs: int | None = None
    logprob_token_ids: list[int] = field(default_factory=list)
    structured_outputs: Any = None
    repetition_detection: tuple[int, int, int] = (0, 0, 0)
    skip_reading_prefix_cache: bool = False
    logits_processors: list[Any] = field(default_factory=list)


@dataclass
class FakeStructuredOutputs:
    kind: str
    text: str = ""
    choices: list[str] = field(default_factory=list)
    any_whitespace: bool = True
    additional_properties: bool = True


@dataclass
class FakeBeamSearchParams:
    beam_width: int
    max_tokens: int
    length_penalty: float = 1.0
    early_stopping: str = "vllm"
    num_return_sequences: int = 0
    num_groups: int = 1
    diversity_penalty: float = 0.0
    stop: list[str] = field(default_factory=list)
    stream: bool = False
    tokens: FakeSamplingParams = field(default_factory=FakeSamplingParams)


@dataclass
class FakeOutput:
    request_id: int
    sample_index: int
    new_token_ids: list[int]
    logprobs: list[tuple[list[int], list[float], list[int]]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_token_id: int | None = None
    error: str = ""
    prompt_logprobs: Any = None
    num_cached_tokens: int = 0
    request_finished: bool = False
    times: tuple[float, float, float, float, int] = (0.0, 0.0, 0.0, 0.0, 0)
    beams: list[Any] = field(default_factory=list)


@dataclass
class FakeModelInfo:
    architecture: str = "FakeForCausalLM"
    dtype: str = "float32"
    quantization: str = "none"
    kv_cache_dtype: str = "float32"
    device: str = "cpu"
    isa: str = "generic"
    num_threads: int = 1
    vocab_size: int = 1000
    hidden_size: int = 8
    num_layers: int = 2
    max_model_len: int = 64
    num_parameters: int = 12345
    weight_bytes: int = 49380
    kv_cache_bytes: int = 1 << 20
    workspace_bytes: int = 1 << 16
    num_kv_blocks: int = 16
    block_size: int = 16
    eos_token_id: int | None = 2
    config_json: str = "{}"


@dataclass
class FakeSequence:
    prompt: list[int]
    params: Any
    cache_salt: str
    tokens: list[list[int]]
    ended: list[bool]
    queued: float = field(default_factory=time.monotonic)
    first_token: float = 0.0


def fake_logprob(token: int) -> float:
    return -0.25 * (token + 1)


Reply = Callable[[list[int], int, int], int]


@dataclass
class FakeEngine:
    """Gives each sample the tokens of `reply(prompt, sample, position)`, one a step."""

    info: FakeModelInfo = field(default_factory=FakeModelInfo)
    reply: Reply = lambda prompt, sample, position: 10 + position
    before_step: Callable[[FakeEngine], None] = lambda engine: None
    failing: str = ""  # prompts that begin with id 666 end with this error
    tokens_per_step: int = 1
    threaded: bool = False  # stepped by a thread
    options: dict[str, Any] = field(default_factory=dict)
    live: dict[int, FakeSequence] = field(default_factory=dict)
    added: list[FakeSequence] = field(default_factory=list)
    aborted: list[Any] = field(default_factory=list)
    num_steps: int = 0
    asleep: list[str] = field(default_factory=list)
    language: Any = None  # of beam searches: generated tokens -> log-probabilities
    vocabulary: list[bytes] = field(default_factory=list)

    @property
    def model_info(self) -> FakeModelInfo:
        return self.info

    def add_request(
        self,
        prompt: Sequence[int],
        params: Any,
        cache_salt: str = "",
        owned: set[int] | None = None,
    ) -> int:
        if max(prompt) == 999:
            from octavo.errors import ValidationError

            raise ValidationError("add_request: this can never fit; expected a shorter prompt")
        samples = range(params.n)
        sequence = FakeSequence(
            list(prompt), params, cache_salt, [[] for _ in samples], [False for _ in samples]
        )
        request_id = len(self.added) + 100
        self.added.append(sequence)
        self.live[request_id] = sequence
        if owned is not None:
            owned.add(request_id)
        return request_id

    def add_beam_search(
        self, prompt: Sequence[int], params: Any, owned: set[int] | None = None
    ) -> int:
        from fake_beams import FakeBeams

        request_id = len(self.added) + 100
        self.added.append(FakeBeams(self, list(prompt), params))
        self.live[request_id] = self.added[-1]
        if owned is not None:
            owned.add(request_id)
        return request_id

    def has_vocabulary(self) -> bool:
        return bool(self.vocabulary)

    def set_vocabulary(self, token_bytes: Sequence[bytes]) -> None:
        self.vocabulary = list(token_bytes)

    def step(self) -> list[FakeOutput]:
        self.before_step(self)
        self.num_steps += 1
        outputs = []
        for request_id, sequence in list(self.live.items()):
            if not isinstance(sequence, FakeSequence):  # a beam search
                outputs.append(sequence.step(request_id))
                if outputs[-1].request_finished:
                    del self.live[request_id]
                continue
            produced = [
                self._advance(request_id, sequence, index)
                for index in range(sequence.params.n)
                if not sequence.ended[index]
            ]
            if all(sequence.ended):
                del self.live[request_id]
                for output in produced:
                    output.request_finished = True
            outputs += produced
        return outputs

    def _advance(self, request_id: int, sequence: FakeSequence, index: int) -> FakeOutput:
        output = FakeOutput(request_id, index, [])
        if self.failing and sequence.prompt[0] == 666:
            output.finish_reason, output.error = "error", self.failing
        while output.finish_reason is None and len(output.new_token_ids) < self.tokens_per_step:
            tokens = sequence.tokens[index]
            tokens.append(self.reply(sequence.prompt, index, len(tokens)))
            output.new_token_ids.append(tokens[-1])
            if sequence.params.logprobs is not None or sequence.params.logprob_token_ids:
                output.logprobs.append(self._logprobs(sequence.params, tokens[-1]))
            self._finish(sequence, tokens, output)
        sequence.ended[index] = output.finish_reason is not None
        now = time.monotonic()
        sequence.first_token = sequence.first_token or now
        output.times = (sequence.queued, sequence.queued, sequence.first_token, now, 0)
        return output

    def _logprobs(self, params: Any, token: int) -> tuple[list[int], list[float], list[int]]:
        """The smaller an id, the more probable is its token."""
        count = self.info.vocab_size if params.logprobs == -1 else params.logprobs or 0
        ids = [token, *(params.logprob_token_ids or range(count))]
        return ids, [fake_logprob(i) for i in ids], [i + 1 for i in ids]

    def _finish(self, sequence: FakeSequence, tokens: list[int], output: FakeOutput) -> None:
        params, last = sequence.params, tokens[-1]
        ends = [] if params.ignore_eos else [self.info.eos_token_id, *params.extra_eos_token_ids]
        if len(tokens) > params.min_tokens and last in [*ends, *params.stop_token_ids]:
            output.finish_reason = "stop"
            is_eos = not params.ignore_eos and last == self.info.eos_token_id
            output.stop_token_id = None if is_eos else last
        elif (
            len(tokens) == params.max_tokens
            or len(sequence.prompt) + len(tokens) == self.info.max_model_len
        ):
            output.finish_reason = "length"

    def abort(self, request_id: int) -> bool:
        self.aborted.append(request_id)
        return self.live.pop(request_id, None) is not None

    def abort_sample(self, request_id: int, sample_index: int) -> bool:
        self.aborted.append((request_id, sample_index))
        sequence = self.live.get(request_id)
        if sequence is None or sequence.ended[sample_index]:
            return False
        sequence.ended[sample_index] = True
        if all(sequence.ended):
            del self.live[request_id]
        return True

    def has_unfinished_requests(self) -> bool:
        return bool(self.live)

    def stats(self) -> dict[str, int]:
        return {
            "num_steps": self.num_steps,
            "num_running": len(self.live),
            "num_blocks_used": len(self.live),
        }

    def metrics(self) -> list[dict[str, Any]]:
        labels = {"model_name": "fake"}
        buckets = [(0.5, 1), (float("inf"), 2)]
        return [
            {"kind": "counter", "name": "generation_tokens", "labels": labels, "value": 7.0},
            {"kind": "gauge", "name": "num_requests_running", "labels": labels, "value": 1.0},
            {"kind": "histogram", "name": "time_to_first_token_seconds", "labels": labels,
             "buckets": buckets, "count": 2, "sum": 1.5},
        ]  # fmt: skip

    def sleep(self, level: int) -> None:
        self.asleep = ["kv_cache", "weights"][:level]

    def wake_up(self, weights: bool = True, kv_cache: bool = True) -> None:
        flags = {"weights": weights, "kv_cache": kv_cache}
        self.asleep = [name for name in self.asleep if not flags[name]]

    def sleep_level(self) -> int:
        return len(self.asleep)

    def reset_prefix_cache(self) -> None:
        self.aborted.append("reset")


class FakeOutputQueue:
    """Outputs of the requests that were added with it."""

    def __init__(self) -> None:
        self._filled = threading.Condition()
        self._outputs: list[FakeOutput] = []
        self._fd: int | None = None
        self.thread: FakeEngineThread | None = None

    def put(self, output: FakeOutput) -> None:
        with self._filled:
            self._outputs.append(output)
            self._filled.notify()
            if self._fd is not None:
                os.eventfd_write(self._fd, 1)

    def take(self, timeout: float | None = None) -> list[FakeOutput]:
        deadline = time.monotonic() + (1e9 if timeout is None else timeout)
        while True:
            with self._filled:
                if not self._outputs and self.thread is not None and self.thread.threaded:
                    self._filled.wait(max(deadline - time.monotonic(), 0))
                taken, self._outputs = self._outputs, []
                if self._fd is not None:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._fd)
            if taken or time.monotonic() >= deadline:
                return taken
            if self.thread is None or not self.thread.step():
                time.sleep(0.001)

    @property
    def fd(self) -> int:
        with self._filled:
            if self._fd is None:
                self._fd = os.eventfd(1 if self._outputs else 0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            return self._fd

    def __del__(self) -> None:
        if self._fd is not None:
            os.close(self._fd)


class FakeEngineThread:
    """Steps a FakeEngine: in `OutputQueue.take`, or in a thread where the engine is `threaded`."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.threaded = engine.threaded
        self.paused = self._closed = False
        self._lock = threading.RLock()
        self._queues: dict[int, FakeOutputQueue] = {}
        # Of requests that are delivered as a whole, by sample: what has been held back.
        self._held: dict[int, dict[int, FakeOutput]] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        if self.threaded:
            self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            if not self.step():
                time.sleep(0.0002)

    def step(self) -> bool:
        with self._lock:
            if self._closed or self.paused or self.engine.asleep or not self.engine.live:
                return False
            outputs = self.engine.step()
            for output in outputs:
                queue = self._queues.get(output.request_id)
                if queue is not None and not self._hold(output):
                    queue.put(output)
            for output in outputs:
                if output.request_finished:
                    self._queues.pop(output.request_id, None)
            return True

    def _hold(self, output: FakeOutput) -> bool:
        samples = self._held.get(output.request_id)
        if samples is None:
            return False
        before = samples.pop(output.sample_index, None)
        if before is not None:
            output.new_token_ids = before.new_token_ids + output.new_token_ids
            output.logprobs = before.logprobs + output.logprobs
            output.prompt_logprobs = before.prompt_logprobs or output.prompt_logprobs
        if output.finish_reason is None:
            samples[output.sample_index] = output
        return output.finish_reason is None

    def _check(self) -> None:
        if self._closed:
            from octavo.errors import OctavoError

            raise OctavoError("engine: it is closed; expected an open one")

    def add_request(
        self,
        prompt: Sequence[int],
        params: Any,
        outputs: FakeOutputQueue,
        cache_salt: str = "",
        owned: set[int] | None = None,
        whole: bool = False,
    ) -> int:
        with self._lock:
            self._check()
            request_id = self.engine.add_request(prompt, params, cache_salt, owned)
            if whole:
                self._held[request_id] = {}
            outputs.thread, self._queues[request_id] = self, outputs
            return request_id

    def add_beam_search(
        self,
        prompt: Sequence[int],
        params: Any,
        outputs: FakeOutputQueue,
        cache_salt: str = "",
        owned: set[int] | None = None,
    ) -> int:
        with self._lock:
            self._check()
            request_id = self.engine.add_beam_search(prompt, params, owned)
            outputs.thread, self._queues[request_id] = self, outputs
            return request_id

    def abort(self, request_id: int) -> None:
        with self._lock:
            self._check()
            queue = self._queues.pop(request_id, None)
            live = self.engine.live.get(request_id)
            samples = self._held.pop(request_id, None)
            if queue is not None and live is not None and samples is not None:
                running = [index for index, ended in enumerate(live.ended) if not ended]
                for index in running:
                    held = samples.get(index) or FakeOutput(request_id, index, [])
                    held.finish_reason = "abort"
                    held.request_finished = index == running[-1]
                    queue.put(held)
            self.engine.abort(request_id)

    def abort_sample(self, request_id: int, sample_index: int) -> None:
        with self._lock:
            self._check()
            self.engine.abort_sample(request_id, sample_index)

    def run_between_steps(self, function: Callable[[], object]) -> None:
        with self._lock:
            self._check()
            function()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def num_unfinished(self) -> int:
        self._check()
        return len(self.engine.live)

    def stats(self) -> dict[str, int]:
        self._check()
        return self.engine.stats()

    def close(self) -> None:
        with self._lock:
            for request_id in list(self.engine.live):
                self.engine.abort(request_id)
            self._closed = True
        if self.threaded:
            self._thread.join()


def use(monkeypatch: Any, engine: FakeEngine) -> FakeEngine:
    """Makes `LLM` take this engine."""
    from octavo import _core

    def make(**options: Any) -> FakeEngine:
        engine.options = options
        return engine

    monkeypatch.setattr(_core, "Engine", make)
    monkeypatch.setattr(_core, "EngineThread", FakeEngineThread, raising=False)
    monkeypatch.setattr(_core, "OutputQueue", FakeOutputQueue, raising=False)
    return engine


FAKED = os.environ.get("OCTAVO_TEST_FAKE_CORE") == "1"
if FAKED:
    _provide_module()
