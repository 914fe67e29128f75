"""SamplingParams: how the tokens of a request are chosen, when it ends, and what its text is.

The names, their order, the defaults and the error texts are vLLM's. Fields that this version does
not implement are accepted at their neutral default and refused by name otherwise: see ``_LATER``.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from octavo import _core
from octavo.errors import NotSupportedError
from octavo.logits_callables import LogitsProcessor, check_logits_processors, for_engine
from octavo.sampling_types import (
    RepetitionDetectionParams,
    RequestOutputKind,
    SamplingType,
    check_output_kind,
    check_repetition_detection,
)
from octavo.structured_outputs import (
    GuidedDecodingParams,
    StructuredOutputsParams,
    check_structured_outputs,
    from_guided_decoding,
)
from octavo.token_rules import (
    cast_logit_bias,
    check_allowed_token_ids,
    check_logit_bias,
    check_logprob_token_ids,
    check_stop_token_ids,
    check_texts,
)
from octavo.value_checks import (
    bad,
    is_int,
    require_finite,
    require_int,
    require_number,
    require_vocabulary,
)

if TYPE_CHECKING:
    from octavo.beam_search import BeamSearchParams

__all__ = [
    "BeamSearchParams",
    "GuidedDecodingParams",
    "LogitsProcessor",
    "RepetitionDetectionParams",
    "RequestOutputKind",
    "SamplingParams",
    "SamplingType",
    "StructuredOutputsParams",
]

MAX_SAMPLES = 16384
_GREEDY_BELOW = 1e-5
_MIN_TEMPERATURE = 0.01
_INT32_MAX = 2**31 - 1
_EXTREME = 1e30  # the engine's floats are of 32 bits; anything further off means the same

# Fields of vLLM that come later, with the values that ask for nothing.
_LATER: dict[str, tuple[Any, ...]] = {
    "watermarking": (None,),
    "prompt_logprob_token_ids": (None,),
    "prompt_logprob_start": (None,),
    "thinking_token_budget": (None, -1),
    "routed_experts_prompt_start": (0,),
    "trace_decode_token_ids": (None,),
}
# How the front end handles a request, rather than what its text is.
_HANDLING = ("skip_reading_prefix_cache", "skip_clone")


@dataclass(repr=False)
class SamplingParams:
    """The parameters of one request. Values are checked and normalised on construction.

    Args:
        n: samples of the prompt, 1..16384; greedy needs 1.
        temperature: 0..2. 0 is greedy; values in (0, 0.01) are raised to 0.01 with a warning.
        top_p: (0, 1]. The smallest set of tokens with at least this probability.
        top_k: 0 or -1 is off; ties with the k-th token are kept.
        min_p: [0, 1], relative to the most probable token.
        seed: any 64-bit integer; None or -1 draws from the engine's seed.
        stop: a string or strings that end the text; none may be empty, at most 1024 and 65,536
            characters in all.
        stop_token_ids: token ids that end the request, at most 128.
        ignore_eos: go on after the model's end-of-sequence token.
        max_tokens: at least 1, or None for as many as the model's context holds. 0 generates
            nothing: for prompt_logprobs, of a prompt as long as the whole context too.
        min_tokens: no end before this many tokens, 0..max_tokens.
        presence_penalty: -2..2, taken from the logits of tokens that the output has.
        frequency_penalty: -2..2, the same for each time that the output has them.
        repetition_penalty: above 0; divides the logits (multiplies those below 0) of tokens that
            the prompt or the output has.
        logit_bias: token ids to numbers that are added to their logits, at most 1024.
        allowed_token_ids: the only ids that may come, 1..1024 of them; None is all.
        bad_words: texts that may not come, with a space in front or without; at most as ``stop``.
        logprobs: return the log-probability of each token and of this many of the most probable
            ones; -1 is the whole vocabulary, None no log-probabilities.
        logprob_token_ids: return those of these ids in the place of the most probable, at most 128.
        prompt_logprobs: the same of every prompt token but the first; the prefix cache is then
            not read.
        flat_logprobs: return them as a FlatLogprobs.
        detokenize: False leaves the text empty.
        skip_special_tokens: leave special tokens out of the text.
        spaces_between_special_tokens: accepted for compatibility; no decoder of a fast tokenizer
            puts spaces there.
        include_stop_str_in_output: keep the stop string (or stop token) in the text.
        output_kind: what the results of a running request hold: all so far, what is new, or
            nothing before the end.
        stream_interval: tokens between two results of a running request, at least 1.
        structured_outputs: what the text must look like.
        extra_args: values of the caller's own, which are only carried along; keys are strings.
        skip_reading_prefix_cache: compute the whole prompt, also what the prefix cache holds.
        skip_clone: ``clone`` makes a shallow copy.
        repetition_detection: ends an output that goes round in circles.
        logits_processors: functions ``(token_ids, logits)`` that change the logits (a numpy array
            of the vocabulary's length) in place for each token. They run one after another in
            Python: the slow path, for what no other parameter says.

    Raises:
        ValidationError: a value is outside its range or of the wrong type.
        NotSupportedError: a field that this version does not implement is set.
    """

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    watermarking: Any = None
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    prompt_logprob_token_ids: Any = None
    prompt_logprob_start: int | None = None
    logprob_token_ids: list[int] | None = None
    flat_logprobs: bool = False
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    stream_interval: int | None = None
    structured_outputs: StructuredOutputsParams | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    extra_args: dict[str, Any] | None = None
    bad_words: list[str] | None = None
    skip_reading_prefix_cache: bool | None = field(default=None, compare=False)
    skip_clone: bool = field(default=False, compare=False)
    thinking_token_budget: int | None = None
    repetition_detection: RepetitionDetectionParams | None = None
    routed_experts_prompt_start: int = 0
    trace_decode_token_ids: Any = None
    logits_processors: list[LogitsProcessor] | None = field(
        default=None, kw_only=True, compare=False
    )
    # Of older versions of vLLM.
    guided_decoding: InitVar[Any] = field(default=None, kw_only=True)
    best_of: InitVar[int | None] = field(default=None, kw_only=True)
    use_beam_search: InitVar[bool | None] = field(default=None, kw_only=True)
    truncate_prompt_tokens: InitVar[int | None] = field(default=None, kw_only=True)

    def __post_init__(
        self,
        guided_decoding: Any,
        best_of: int | None,
        use_beam_search: bool | None,
        truncate_prompt_tokens: int | None,
    ) -> None:
        self._check_counts()
        _check_old("best_of", best_of, self.n, "None or n, and the best picked by its caller")
        _check_old("use_beam_search", use_beam_search, False, "None or False; see LLM.beam_search")
        _check_old(
            "truncate_prompt_tokens",
            truncate_prompt_tokens,
            None,
            f"tokenization_kwargs={{'truncate_prompt_tokens': {truncate_prompt_tokens!r}}} in the "
            "call",
        )
        self._take_guided_decoding(guided_decoding)
        self._check_penalties()
        self._check_temperature()
        self._check_filters()
        self._check_stops()
        self._check_flags()
        self._check_logprobs()
        self._check_token_rules()
        self._check_output()
        self._refuse_later_fields()

    @classmethod
    def from_optional(cls, **kwargs: Any) -> SamplingParams:
        """Like the constructor, with None meaning "the default" for every field.

        The keys of ``logit_bias`` may be strings, and its values are clamped to [-100, 100].
        """
        always = {"max_tokens"}  # here None has a meaning of its own
        given = {k: v for k, v in kwargs.items() if v is not None or k in always}
        if "logit_bias" in given:
            given["logit_bias"] = cast_logit_bias(given["logit_bias"])
        return cls(**given)

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature < _GREEDY_BELOW

    @property
    def sampling_type(self) -> SamplingType:
        """GREEDY, RANDOM or RANDOM_SEED."""
        if self.greedy:
            return SamplingType.GREEDY
        return SamplingType.RANDOM if self.seed is None else SamplingType.RANDOM_SEED

    @property
    def all_stop_token_ids(self) -> set[int]:
        """The ids of ``stop_token_ids`` as a set."""
        return set(self.stop_token_ids or ())

    @property
    def wants_logprobs(self) -> bool:
        """Whether the results have log-probabilities."""
        return self.logprobs is not None or self.logprob_token_ids is not None

    def clone(self) -> SamplingParams:
        """A deep copy (with ``skip_clone``, a shallow one), which shares logits processors."""
        return copy.copy(self) if self.skip_clone else copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> SamplingParams:
        result = copy.copy(self)
        memo[id(self)] = result
        for name, value in vars(self).items():
            # Processors may hold what cannot be copied, and their state is their owner's.
            own = list(value or ()) or None if name == "logits_processors" else None
            setattr(result, name, own or copy.deepcopy(value, memo))
        return result

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raises ValidationError when a token id is not in the model's vocabulary."""
        require_vocabulary("stop_token_ids", self.stop_token_ids or (), vocab_size)
        require_vocabulary("logit_bias", self.logit_bias or (), vocab_size)
        require_vocabulary("logprob_token_ids", self.logprob_token_ids or (), vocab_size)
        outside = [i for i in self.allowed_token_ids or () if not 0 <= i < vocab_size]
        if outside:
            raise bad(
                "allowed_token_ids", outside, "allowed_token_ids contains out-of-vocab token id!"
            )

    def check_max_logprobs(self, max_logprobs: int, vocab_size: int) -> None:
        """Raises ValidationError when more log-probabilities are asked for than the LLM allows."""
        sampled = None if self.logprob_token_ids is not None else self.logprobs
        most = vocab_size if max_logprobs == -1 else max_logprobs
        for kind, name, count in (
            ("sample", "logprobs", sampled),
            ("prompt", "prompt_logprobs", self.prompt_logprobs),
        ):
            asked = vocab_size if count == -1 else count or 0
            if asked > most:
                text = f"Requested {kind} logprobs of {asked}, which is greater than max allowed"
                raise bad(name, asked, f"{text}: {most}")

    def to_core(
        self,
        extra_eos_token_ids: Sequence[int] = (),
        bad_words_token_ids: Sequence[Sequence[int]] = (),
    ) -> _core.SamplingParams:
        """The engine's part of the parameters; the rest is the text's, which Python handles.

        ``bad_words_token_ids`` are the token sequences of ``bad_words``.
        """
        biases = self.logit_bias or {}
        structure, repetition = self.structured_outputs, self.repetition_detection
        rarely_given: dict[str, Any] = {
            "structured_outputs": structure and structure.to_core(),
            "repetition_detection": repetition and repetition.to_core(),
            "skip_reading_prefix_cache": self.skip_reading_prefix_cache,
            "logits_processors": [for_engine(each) for each in self.logits_processors or ()],
        }
        return _core.SamplingParams(
            **{name: value for name, value in rarely_given.items() if value},
            n=self.n,
            temperature=self.temperature,
            top_p=max(self.top_p, 1 / _EXTREME),
            top_k=min(self.top_k, _INT32_MAX),
            min_p=self.min_p,
            seed=None if self.seed is None else self.seed % 2**64,
            max_tokens=None if self.max_tokens is None else min(self.max_tokens, _INT32_MAX),
            min_tokens=min(self.min_tokens, _INT32_MAX),
            ignore_eos=self.ignore_eos,
            stop_token_ids=list(self.stop_token_ids or ()),
            extra_eos_token_ids=list(extra_eos_token_ids),
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=min(max(self.repetition_penalty, 1 / _EXTREME), _EXTREME),
            logit_bias={i: min(max(b, -_EXTREME), _EXTREME) for i, b in biases.items()},
            allowed_token_ids=list(self.allowed_token_ids or ()),
            bad_words=[list(ids) for ids in bad_words_token_ids],
            # The ids take the place of the most probable ones, however many those would be.
            logprobs=None if self.logprob_token_ids is not None else self.logprobs,
            logprob_token_ids=list(self.logprob_token_ids or ()),
            prompt_logprobs=self.prompt_logprobs,
        )

    def __repr__(self) -> str:
        hidden = {*_LATER, *_HANDLING}
        shown = [f.name for f in fields(self) if f.name not in hidden]
        return f"SamplingParams({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def _check_counts(self) -> None:
        if not is_int(self.n):
            raise bad("n", self.n, f"n must be an int, but is of type {type(self.n)}")
        if self.n < 1:
            raise bad("n", self.n, f"n must be at least 1, got {self.n}.")
        if self.n > MAX_SAMPLES:
            raise bad("n", self.n, f"n must be at most {MAX_SAMPLES}, got {self.n}.")
        if self.max_tokens is not None:
            require_int("max_tokens", self.max_tokens)
            if self.max_tokens < 0:
                raise bad(
                    "max_tokens",
                    self.max_tokens,
                    f"max_tokens must be at least 1, got {self.max_tokens}.",
                )
        require_int("min_tokens", self.min_tokens)
        if self.min_tokens < 0:
            raise bad(
                "min_tokens",
                self.min_tokens,
                f"min_tokens must be greater than or equal to 0, got {self.min_tokens}.",
            )
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise bad(
                "min_tokens",
                self.min_tokens,
                f"min_tokens must be less than or equal to max_tokens={self.max_tokens}, "
                f"got {self.min_tokens}.",
            )
        self.n, self.min_tokens = int(self.n), int(self.min_tokens)
        self.max_tokens = None if self.max_tokens is None else int(self.max_tokens)

    def _check_penalties(self) -> None:
        for name in ("presence_penalty", "frequency_penalty"):
            value = require_number(name, getattr(self, name))
            if not -2.0 <= value <= 2.0:
                raise bad(name, value, f"{name} must be in [-2, 2], got {value}.")
            setattr(self, name, value)
        value = require_number("repetition_penalty", self.repetition_penalty)
        require_finite("repetition_penalty", value)
        if value <= 0.0:
            raise bad(
                "repetition_penalty",
                value,
                f"repetition_penalty must be greater than zero, got {value}.",
            )
        self.repetition_penalty = value

    def _check_temperature(self) -> None:
        value = require_number("temperature", self.temperature)
        require_finite("temperature", value)
        if value < 0.0:
            raise bad("temperature", value, f"temperature must be non-negative, got {value}.")
        if value > 2.0:
            raise bad("temperature", value, f"temperature must be in [0, 2], got {value}.")
        if 0.0 < value < _MIN_TEMPERATURE:
            warnings.warn(
                f"temperature {value} is less than {_MIN_TEMPERATURE}, which may cause numerical "
                f"errors; it is raised to {_MIN_TEMPERATURE}.",
                stacklevel=4,
            )
            value = _MIN_TEMPERATURE
        self.temperature = value

    def _check_filters(self) -> None:
        self.top_p = require_number("top_p", self.top_p)
        if not 0.0 < self.top_p <= 1.0:
            raise bad("top_p", self.top_p, f"top_p must be in (0, 1], got {self.top_p}.")
        if not is_int(self.top_k):
            raise bad(
                "top_k", self.top_k, f"top_k must be an integer, got {type(self.top_k).__name__}"
            )
        self.top_k = int(self.top_k)
        if self.top_k < -1:
            raise bad(
                "top_k", self.top_k, f"top_k must be 0 (disable), or at least 1, got {self.top_k}."
            )
        self.top_k = max(self.top_k, 0)
        self.min_p = require_number("min_p", self.min_p)
        if not 0.0 <= self.min_p <= 1.0:
            raise bad("min_p", self.min_p, f"min_p must be in [0, 1], got {self.min_p}.")
        self._check_seed()
        if self.greedy:
            if self.n > 1:
                raise bad("n", self.n, f"n must be 1 when using greedy sampling, got {self.n}.")
            self.top_p, self.top_k, self.min_p = 1.0, 0, 0.0

    def _check_seed(self) -> None:
        if self.seed is None:
            return
        require_int("seed", self.seed)
        if not -(2**63) <= self.seed < 2**64:
            raise bad("seed", self.seed, f"seed must be a 64-bit integer, got {self.seed}.")
        self.seed = None if self.seed == -1 else int(self.seed)

    def _check_stops(self) -> None:
        stop = self.stop
        self.stop = check_texts("stop", [stop] if isinstance(stop, str) else stop)
        self.stop_token_ids = check_stop_token_ids(self.stop_token_ids)
        if self.stop and self.detokenize is False:
            raise bad(
                "stop",
                self.stop,
                "stop strings are only supported when detokenize is True. "
                "Set detokenize=True to use stop.",
            )

    def _check_flags(self) -> None:
        for name in (
            "ignore_eos",
            "detokenize",
            "skip_special_tokens",
            "spaces_between_special_tokens",
            "include_stop_str_in_output",
            "flat_logprobs",
            "skip_clone",
        ):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise bad(name, value, f"{name} must be a bool, got {type(value).__name__}.")

    def _check_logprobs(self) -> None:
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            if isinstance(value, bool):  # as the chat API says it
                value = 1 if value else None
            if value is not None:
                require_int(name, value)
                value = int(value)
                if value < -1:
                    raise bad(name, value, f"{name} must be non-negative or -1, got {value}.")
            setattr(self, name, value)
        self.logprob_token_ids = check_logprob_token_ids(self.logprob_token_ids, self.logprobs)

    def _check_token_rules(self) -> None:
        self.logit_bias = check_logit_bias(self.logit_bias)
        self.bad_words = check_texts("bad_words", self.bad_words)
        self.allowed_token_ids = check_allowed_token_ids(self.allowed_token_ids)

    def _take_guided_decoding(self, guided_decoding: Any) -> None:
        if guided_decoding is None:
            return
        warnings.warn("guided_decoding is now structured_outputs", DeprecationWarning, stacklevel=4)
        if self.structured_outputs is not None:
            raise bad(
                "guided_decoding",
                None,
                "guided_decoding and structured_outputs cannot both be given; expected the latter.",
            )
        self.structured_outputs = from_guided_decoding(guided_decoding)

    def _check_output(self) -> None:
        self.output_kind = check_output_kind(self.output_kind)
        if self.stream_interval is not None:
            require_int("stream_interval", self.stream_interval)
            if self.stream_interval < 1:
                raise bad(
                    "stream_interval",
                    self.stream_interval,
                    f"stream_interval must be at least 1, got {self.stream_interval}.",
                )
            self.stream_interval = int(self.stream_interval)
        self.structured_outputs = check_structured_outputs(self.structured_outputs)
        self.repetition_detection = check_repetition_detection(self.repetition_detection)
        self.logits_processors = check_logits_processors(self.logits_processors)
        skip = self.skip_reading_prefix_cache
        if skip is not None and not isinstance(skip, bool):
            raise bad(
                "skip_reading_prefix_cache",
                skip,
                f"skip_reading_prefix_cache must be a bool or None, got {type(skip).__name__}.",
            )
        self._check_extra_args()

    def _check_extra_args(self) -> None:
        extra = self.extra_args
        if extra is None:
            return
        if not isinstance(extra, dict) or not all(isinstance(name, str) for name in extra):
            raise bad("extra_args", extra, "extra_args must be a dict with strings as keys.")

    def _refuse_later_fields(self) -> None:
        for name, neutral in _LATER.items():
            value = getattr(self, name)
            if not any(_same(value, allowed) for allowed in neutral):
                raise NotSupportedError(
                    f"{name}={value!r} is not supported by this version of Octavo; "
                    f"expected its default, {neutral[0]!r}"
                )


def _same(value: Any, neutral: int | None) -> bool:
    if neutral is None:
        return value is None
    return is_int(value) and bool(value == neutral)


def _check_old(name: str, value: Any, neutral: Any, expected: str) -> None:
    """Accepts a spelling of older versions of vLLM where it asks for nothing."""
    if value is None:
        return
    warnings.warn(
        f"{name} is no field of SamplingParams any more; leave it out",
        DeprecationWarning,
        stacklevel=4,
    )
    if value != neutral:
        raise NotSupportedError(
            f"{name}={value!r} is not supported by this version of Octavo; expected {expected}"
        )


def __getattr__(name: str) -> Any:
    """BeamSearchParams, whose module needs this one."""
    if name == "BeamSearchParams":
        from octavo.beam_search import BeamSearchParams

        return BeamSearchParams
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
