"""Beam search as callers see it: BeamSearchParams, and what ``LLM.beam_search`` gives back.

The names, their order and the defaults are vLLM's; what may only be given by keyword goes beyond
it. The search itself is the engine's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from octavo import _core
from octavo.detokenizer import IncrementalDetokenizer, continues_text
from octavo.inputs import TokensPrompt
from octavo.logprob_types import LogprobsOnePosition
from octavo.outputs import CompletionOutput, RequestOutput
from octavo.sampling_params import MAX_SAMPLES, RequestOutputKind, SamplingParams
from octavo.structured_outputs import StructuredOutputsParams
from octavo.tokenizer import Tokenizer
from octavo.value_checks import bad, is_int, require_finite, require_int, require_number

__all__ = ["BeamSearchOutput", "BeamSearchParams", "BeamSearchSequence", "RequestParams"]

_MOST_POWER = 700.0  # of e, in a float
# The fields whose meaning, and whose checks, are those of SamplingParams.
_TOKEN_RULES = (
    "max_tokens",
    "ignore_eos",
    "temperature",
    "include_stop_str_in_output",
    "structured_outputs",
    "skip_special_tokens",
    "watermarking",
    "allowed_token_ids",
    "stop",
    "stop_token_ids",
    "min_tokens",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "bad_words",
    "output_kind",
)


@dataclass
class BeamSearchParams:
    """How the most probable continuations of a prompt are searched. Values are checked and
    normalised on construction.

    Args:
        beam_width: continuations that are followed at once, 1..16384; 1 is greedy.
        max_tokens: at least 1.
        ignore_eos: go on after the model's end-of-sequence token.
        temperature: 0..2, accepted for compatibility. Scores are the model's own
            log-probabilities, as in vLLM, and nothing is drawn.
        length_penalty: a beam's score is its log-probability over its length to this power; above
            0 favours long beams. The length counts generated tokens, an end token too.
        include_stop_str_in_output: keep the stop string (or stop token) in the text.
        structured_outputs: what the text of every beam must look like.
        skip_special_tokens: leave special tokens out of the text.
        watermarking: must be None in this version.
        allowed_token_ids: the only ids that may come, 1..1024 of them; None is all.
        early_stopping: when a search ends before ``max_tokens``. None is vLLM's rule: when no beam
            is left to go on. True, False and "never" are transformers' rules: when ``beam_width``
            beams have ended; or when the best live beam is worse than those, scored at its present
            length, or at the length that favours it.
        num_return_sequences: beams in the result, 1..beam_width; None is all.
        stop: a string or strings that end a beam, bounded as in SamplingParams.
        stop_token_ids: token ids that end a beam, at most 128.
        min_tokens: no end before this many tokens, 0..max_tokens.
        presence_penalty, frequency_penalty, repetition_penalty, logit_bias, bad_words: as in
            SamplingParams, for each beam's own tokens. They change the log-probabilities that the
            scores are made of.
        diversity_penalty: taken from the log-probability of a token for each time that the groups
            before have chosen it in the same step; at least 0.
        num_beam_groups: groups of equal size that the beams are divided into.
        logprobs: results have a dict of log-probabilities for each token.
        output_kind: what ``AsyncLLM.generate`` gives: the best beam so far after each step
            (CUMULATIVE), or only the result (FINAL_ONLY).

    Raises:
        ValidationError: a value is outside its range or of the wrong type.
        NotSupportedError: a field that this version does not implement is set.
    """

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    include_stop_str_in_output: bool = False
    structured_outputs: StructuredOutputsParams | None = None
    skip_special_tokens: bool = True
    watermarking: Any = None
    allowed_token_ids: list[int] | None = None
    early_stopping: bool | str | None = field(default=None, kw_only=True)
    num_return_sequences: int | None = field(default=None, kw_only=True)
    stop: str | list[str] | None = field(default=None, kw_only=True)
    stop_token_ids: list[int] | None = field(default=None, kw_only=True)
    min_tokens: int = field(default=0, kw_only=True)
    presence_penalty: float = field(default=0.0, kw_only=True)
    frequency_penalty: float = field(default=0.0, kw_only=True)
    repetition_penalty: float = field(default=1.0, kw_only=True)
    logit_bias: dict[int, float] | None = field(default=None, kw_only=True)
    bad_words: list[str] | None = field(default=None, kw_only=True)
    diversity_penalty: float = field(default=0.0, kw_only=True)
    num_beam_groups: int = field(default=1, kw_only=True)
    logprobs: bool = field(default=True, kw_only=True)
    output_kind: RequestOutputKind = field(default=RequestOutputKind.CUMULATIVE, kw_only=True)

    # What requests of all kinds are asked for.
    detokenize: ClassVar[bool] = True
    flat_logprobs: ClassVar[bool] = False
    prompt_logprobs: ClassVar[int | None] = None
    stream_interval: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        self._check_width()
        require_int("max_tokens", self.max_tokens)
        if self.max_tokens < 1:
            text = f"max_tokens must be at least 1, got {self.max_tokens}."
            raise bad("max_tokens", self.max_tokens, text)
        self.length_penalty = require_number("length_penalty", self.length_penalty)
        require_finite("length_penalty", self.length_penalty)
        if _rule_of(self.early_stopping) is None:
            text = "early_stopping must be True, False, 'never' or None, got "
            raise bad("early_stopping", None, f"{text}{self.early_stopping!r}.")
        self._check_groups()
        if not isinstance(self.logprobs, bool):
            text = f"logprobs must be a bool, got {type(self.logprobs).__name__}."
            raise bad("logprobs", self.logprobs, text)
        rules = self.token_rules()
        for name in _TOKEN_RULES:
            setattr(self, name, getattr(rules, name))
        if self.output_kind == RequestOutputKind.DELTA:
            text = "output_kind must be CUMULATIVE or FINAL_ONLY, since the best beam may change."
            raise bad("output_kind", self.output_kind, text)

    @property
    def n(self) -> int:
        """The beams in the result."""
        return self.num_return_sequences or self.beam_width

    @property
    def wants_logprobs(self) -> bool:
        """Whether the results have log-probabilities of each token."""
        return self.logprobs

    def clone(self) -> BeamSearchParams:
        """A deep copy."""
        return copy.deepcopy(self)

    def token_rules(self) -> SamplingParams:
        """What is said of single tokens. Raises ValidationError for what is out of range."""
        return SamplingParams(**{name: getattr(self, name) for name in _TOKEN_RULES})

    def to_core(self, tokens: _core.SamplingParams) -> _core.BeamSearchParams:
        """The engine's form; ``tokens`` is that of ``token_rules``."""
        tokens.temperature = 0.0
        rule = _rule_of(self.early_stopping)
        assert rule is not None
        assert tokens.max_tokens is not None  # one that the engine's integers hold
        return _core.BeamSearchParams(
            beam_width=self.beam_width,
            max_tokens=tokens.max_tokens,
            length_penalty=self.length_penalty,
            early_stopping=rule,
            num_return_sequences=self.num_return_sequences or 0,
            num_groups=self.num_beam_groups,
            diversity_penalty=self.diversity_penalty,
            stop=[self.stop] if isinstance(self.stop, str) else list(self.stop or ()),
            tokens=tokens,
        )

    def score(self, cumulative_logprob: float, num_tokens: int) -> float:
        """What beams are ordered by: the best has the greatest."""
        power = self.length_penalty * math.log(max(num_tokens, 1))
        return cumulative_logprob * math.exp(-min(max(power, -_MOST_POWER), _MOST_POWER))

    def _check_width(self) -> None:
        width = self.beam_width
        if not is_int(width):
            text = f"beam_width must be an int, but is of type {type(width)}"
            raise bad("beam_width", width, text)
        if width < 1:
            raise bad("beam_width", width, f"beam_width must be at least 1, got {width}.")
        if width > MAX_SAMPLES:
            text = f"beam_width must be at most {MAX_SAMPLES}, got {width}."
            raise bad("beam_width", width, text)
        self.beam_width = int(width)
        count = self.num_return_sequences
        if count is not None:
            require_int("num_return_sequences", count)
            if not 1 <= count <= width:
                text = f"num_return_sequences must be in [1, beam_width={width}], got {count}."
                raise bad("num_return_sequences", count, text)
            self.num_return_sequences = int(count)

    def _check_groups(self) -> None:
        name, count = "num_beam_groups", self.num_beam_groups
        require_int(name, count)
        if count < 1 or self.beam_width % count != 0:
            text = f"{name} must be a divisor of beam_width={self.beam_width}, got {count}."
            raise bad(name, count, text)
        self.num_beam_groups = int(count)
        name, penalty = "diversity_penalty", self.diversity_penalty
        self.diversity_penalty = penalty = require_number(name, penalty)
        require_finite(name, penalty)
        if penalty < 0:
            raise bad(name, penalty, f"{name} must be at least 0, got {penalty}.")
        if penalty > 0 and count == 1:
            raise bad(name, penalty, f"{name} needs num_beam_groups above 1, got {penalty}.")


# What a prompt may be given with.
RequestParams = SamplingParams | BeamSearchParams


def _rule_of(early_stopping: Any) -> str | None:
    """The engine's name of the rule, None where there is none."""
    if isinstance(early_stopping, bool):
        return "true" if early_stopping else "false"
    if early_stopping is None:
        return "vllm"
    return "never" if isinstance(early_stopping, str) and early_stopping == "never" else None


@dataclass
class BeamSearchSequence:
    """One beam of a result.

    ``tokens`` are the prompt's and the generated ones, an end token too, and ``text`` is the text
    of all of them, the prompt's included, cut at a stop string; None without a tokenizer.
    ``logprobs`` has a dict for each generated token, with the candidates that it was chosen from,
    and ``cum_logprob`` is their sum; ``score`` is what the beams are ordered by. ``finish_reason``
    and ``stop_reason`` are as in a CompletionOutput.
    """

    orig_prompt: TokensPrompt
    tokens: list[int]
    logprobs: list[LogprobsOnePosition]
    lora_request: Any = None
    cum_logprob: float = 0.0
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    score: float | None = field(default=None, kw_only=True)


@dataclass
class BeamSearchOutput:
    """The result of one prompt: its beams, best first."""

    sequences: list[BeamSearchSequence]


def beam_search_outputs(
    outputs: Sequence[RequestOutput], params: Sequence[RequestParams], tokenizer: Tokenizer | None
) -> list[BeamSearchOutput]:
    """The results in the form of ``LLM.beam_search``; ``params`` are BeamSearchParams."""
    return [
        _beam_search_output(output, search, tokenizer)
        for output, search in zip(outputs, params, strict=True)
        if isinstance(search, BeamSearchParams)
    ]


def _beam_search_output(
    output: RequestOutput, params: BeamSearchParams, tokenizer: Tokenizer | None
) -> BeamSearchOutput:
    prompt_ids = output.prompt_token_ids or []
    prompt = TokensPrompt(prompt_token_ids=prompt_ids)
    if output.prompt is not None:
        prompt["prompt"] = output.prompt
    sequences = []
    for beam in output.outputs:
        total = beam.cumulative_logprob or 0.0
        sequences.append(
            BeamSearchSequence(
                orig_prompt=prompt,
                tokens=[*prompt_ids, *beam.token_ids],
                logprobs=list(beam.logprobs or ()),
                cum_logprob=total,
                text=None
                if tokenizer is None
                else _whole_text(prompt_ids, beam, params, tokenizer),
                finish_reason=beam.finish_reason,
                stop_reason=beam.stop_reason,
                score=params.score(total, len(beam.token_ids)),
            )
        )
    return BeamSearchOutput(sequences)


def _whole_text(
    prompt_ids: list[int], beam: CompletionOutput, params: BeamSearchParams, tokenizer: Tokenizer
) -> str:
    """The text of the prompt and the beam."""
    skip = params.skip_special_tokens
    text = tokenizer.decode([*prompt_ids, *beam.token_ids], skip_special_tokens=skip)
    if not isinstance(beam.stop_reason, str):
        return text
    # A stop string has cut the beam's text: what it has cut off is the end of the whole text too.
    continuation = continues_text(prompt_ids, tokenizer, skip)
    uncut = IncrementalDetokenizer(tokenizer, skip_special_tokens=skip, continuation=continuation)
    uncut.feed(beam.token_ids)
    uncut.finish()
    removed = len(uncut.text) - len(beam.text)
    return text[: len(text) - removed] if removed > 0 else text
