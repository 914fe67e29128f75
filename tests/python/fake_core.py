"""A stand-in for the compiled engine, whose replies a test writes down: the Python package's tests
need no model and no luck.

`FakeEngine` is put in the place of `_core.Engine` by the fixture-like `use`. With
OCTAVO_TEST_FAKE_CORE=1 in the environment, importing this module also provides the rest of
`octavo._core`, so that these tests run before the extension is built.
"""

from __future__ import annotations

import os
import sys
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
    core.Engine = FakeEngine
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


@dataclass
class FakeOutput:
    request_id: int
    sample_index: int
    new_token_ids: list[int]
    logprobs: list[tuple[list[int], list[float], list[int]]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_token_id: int | None = None
    error: str = ""
    prompt_logprobs: list[Any] = field(default_factory=list)
    num_cached_tokens: int = 0
    request_finished: bool = False


@dataclass
class FakeModelInfo:
    architecture: str = "FakeForCausalLM"
    dtype: str = "float32"
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
    options: dict[str, Any] = field(default_factory=dict)
    live: dict[int, FakeSequence] = field(default_factory=dict)
    added: list[FakeSequence] = field(default_factory=list)
    aborted: list[Any] = field(default_factory=list)
    num_steps: int = 0

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

    def step(self) -> list[FakeOutput]:
        self.before_step(self)
        self.num_steps += 1
        outputs = []
        for request_id, sequence in list(self.live.items()):
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
        return {"num_steps": self.num_steps, "num_running": len(self.live)}

    def reset_prefix_cache(self) -> None:
        self.aborted.append("reset")


def use(monkeypatch: Any, engine: FakeEngine) -> FakeEngine:
    """Makes `LLM` take this engine."""
    from octavo import _core

    def make(**options: Any) -> FakeEngine:
        engine.options = options
        return engine

    monkeypatch.setattr(_core, "Engine", make)
    return engine


FAKED = os.environ.get("OCTAVO_TEST_FAKE_CORE") == "1"
if FAKED:
    _provide_module()
