"""Every field of SamplingParams with what it takes, written from the specification and not from the
code: the table of test_bounds.py."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

VOCAB_SIZE = 320
MAX_LOGPROBS = 20
NAN, INF = math.nan, math.inf


def leave(token_ids, logits):
    """A logits processor that changes nothing."""


# Tried for every field, whatever its type is.
ANYTHING = [
    0, 1, -1, 2, 0.0, 0.5, -0.5, NAN, INF, -INF, 1e308, -1e308, 1e-308, 5e-324,
    2**31 - 1, 2**31, -(2**31), 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400,
    True, False, None, "", "1", "x", "\ud800", b"1", [], [0], [-1], ["x"], [""], [None], [1.5],
    [2**63], (), (1, 2), {}, {"a": 1}, {1: 1.0}, {1: NAN}, {-1: 1.0}, {2**31: 1.0}, {1: 1e308},
    {"1": 1.0}, object(), leave, [leave], [object()], np.int64(1), np.int8(-1),
    np.uint64(2**64 - 1), np.float32(0.5), np.float64(NAN), np.bool_(True), np.array([1, 2]),
    np.array([0.5]), range(3),
    [VOCAB_SIZE - 1], [VOCAB_SIZE], {VOCAB_SIZE - 1: 1.0}, {VOCAB_SIZE: 1.0}, 1 + 2j, Ellipsis,
]  # fmt: skip

RUNS, SUBMISSION, CONSTRUCTION = "runs", "refused at submission", "refused at construction"


@dataclass(frozen=True)
class Field:
    """``takes`` says what happens to a value; ``bounds`` are values of its own to try."""

    takes: Callable[[Any], str]
    bounds: tuple[Any, ...] = ()


def _if(takes: Callable[[Any], bool]) -> Callable[[Any], str]:
    return lambda value: RUNS if takes(value) else CONSTRUCTION


def is_int(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    return not is_int(value) or abs(int(value)) < 2**1024


def is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def integer(least: float, most: float = INF, *, none: bool = False) -> Field:
    tries = [least - 1, least, least + 1, *([] if most == INF else [most - 1, most, most + 1])]
    return Field(
        _if(lambda v: (none and v is None) or (is_int(v) and least <= int(v) <= most)),
        tuple(tries),
    )


def number(least: float, most: float, *, open_below: bool = False) -> Field:
    near = [math.nextafter(bound, away) for bound in (least, most) for away in (-INF, INF)]

    def takes(value: Any) -> bool:
        if not is_number(value) or not math.isfinite(value):
            return False
        value = float(value)
        return (least < value if open_below else least <= value) and value <= most

    return Field(_if(takes), (least, most, least - 1, most + 1, *near))


def _list(value: Any) -> list[Any] | None:
    """The items, where a list of them is taken."""
    if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__iter__"):
        return None
    return list(value)


def ids(most: int, *, empty: bool = True) -> Field:
    def takes(value: Any) -> str:
        items = [] if value is None else _list(value)
        if items is None or not all(is_int(i) for i in items):
            return CONSTRUCTION
        if len(set(items)) > most or (not items and value is not None and not empty):
            return CONSTRUCTION
        return RUNS if all(0 <= i < VOCAB_SIZE for i in items) else SUBMISSION

    tries = ([7] * (most + 1), list(range(min(most, VOCAB_SIZE))), list(range(most + 1)))
    return Field(takes, tries)


def texts(*, bare: bool) -> Field:
    """Strings, none empty, in all not too long; a bare one where that is taken."""

    def takes(value: Any) -> bool:
        items = [] if value is None else _list(value)
        if bare and isinstance(value, str):
            items = [value]
        if items is None or not all(isinstance(i, str) and i for i in items):
            return False
        return len(items) <= 1024 and sum(map(len, items)) <= 65536

    most: list[Any] = [["ab"] * 1024, ["ab"] * 1025]
    if bare:  # bad words have fewer, in tokens
        most += [["a" * 65536], ["a" * 65537]]
    return Field(_if(takes), ("ab", ["a", "b"], ["a", 1], *most))


def logprobs(value: Any) -> str:
    if value is None or is_bool(value):
        return RUNS
    if not is_int(value) or value < -1:
        return CONSTRUCTION
    return RUNS if 0 <= value <= MAX_LOGPROBS else SUBMISSION


def logit_bias(value: Any) -> str:
    if value is None:
        return RUNS
    if not isinstance(value, Mapping) or len(value) > 1024:
        return CONSTRUCTION
    finite = all(is_number(bias) and math.isfinite(bias) for bias in value.values())
    if not finite or not all(is_int(i) for i in value):
        return CONSTRUCTION
    return RUNS if all(0 <= i < VOCAB_SIZE for i in value) else SUBMISSION


def repetition_detection(value: Any) -> bool:
    if value is None:
        return True
    names = ("max_pattern_size", "min_pattern_size", "min_count")
    if not isinstance(value, dict) or not set(value) <= set(names):
        return False
    largest, smallest, count = (value.get(name, 0) for name in names)
    if not all(is_int(v) and v >= 0 for v in (largest, smallest, count)):
        return False
    return smallest <= largest and (largest == 0 or count >= 2)


def repetitions(*sizes: tuple[Any, Any, Any]) -> tuple[dict[str, Any], ...]:
    names = ("max_pattern_size", "min_pattern_size", "min_count")
    return tuple(dict(zip(names, each, strict=True)) for each in sizes)


def nothing_but(*neutral: Any) -> Field:
    """A field that this version does not implement."""

    def takes(value: Any) -> bool:
        if value is None:
            return None in neutral
        return is_int(value) and int(value) in neutral

    return Field(_if(takes))


def structure(value: Any) -> str:
    """A structure that is well-formed as JSON goes, but that no grammar can be made of, is refused
    when it is submitted."""
    if value is None:
        return RUNS
    return _STRUCTURES.get(repr(value), CONSTRUCTION)


STRUCTURES: list[tuple[dict[str, Any], str]] = [
    ({"regex": "[ab]{1,3}"}, RUNS),
    ({"choice": ["yes", "no"]}, RUNS),
    ({"json": {"type": "object"}}, RUNS),
    ({"json_object": True}, RUNS),
    ({"grammar": 'root ::= "a" | "b" root'}, RUNS),
    ({"regex": "("}, SUBMISSION),
    ({"grammar": "root ::= "}, SUBMISSION),
    ({"json": {"type": "objekt"}}, SUBMISSION),
    ({"json": "{"}, CONSTRUCTION),
    ({"json_object": False}, CONSTRUCTION),
    ({"choice": []}, CONSTRUCTION),
    ({"choice": [1]}, CONSTRUCTION),
    ({"regex": "a", "choice": ["a"]}, CONSTRUCTION),
    ({"regex": "\0"}, CONSTRUCTION),
    ({"regex": None}, CONSTRUCTION),
    ({"json": {}, "whitespace_pattern": " "}, CONSTRUCTION),
]
_STRUCTURES = {repr(value): outcome for value, outcome in STRUCTURES}

FLAG = Field(_if(is_bool))
TABLE: dict[str, Field] = {
    "n": integer(1, 16384),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "repetition_penalty": number(0, 1.7976931348623157e308, open_below=True),
    "temperature": number(0, 2),
    "top_p": number(0, 1, open_below=True),
    "top_k": integer(-1),
    "min_p": number(0, 1),
    "seed": integer(-(2**63), 2**64 - 1, none=True),
    "stop": texts(bare=True),
    "stop_token_ids": ids(128),
    "ignore_eos": FLAG,
    "max_tokens": integer(0, none=True),
    "min_tokens": integer(0, 8),  # max_tokens is 8
    "logprobs": Field(logprobs, (20, 21, 2**31 - 1)),
    "prompt_logprobs": Field(logprobs, (20, 21, 2**31 - 1)),
    "logprob_token_ids": ids(128),
    "flat_logprobs": FLAG,
    "detokenize": FLAG,
    "skip_special_tokens": FLAG,
    "spaces_between_special_tokens": FLAG,
    "include_stop_str_in_output": FLAG,
    "output_kind": integer(0, 2),
    "stream_interval": integer(1, none=True),
    "structured_outputs": Field(structure, tuple(value for value, _ in STRUCTURES)),
    "logit_bias": Field(
        logit_bias,
        (dict.fromkeys(range(VOCAB_SIZE), -1e308), dict.fromkeys(range(1025), 1.0), {5: "1"}),
    ),
    "allowed_token_ids": ids(1024, empty=False),
    "extra_args": Field(
        _if(lambda v: v is None or (isinstance(v, dict) and all(isinstance(k, str) for k in v))),
        ({"x": object()}, {"x": 10**400}),
    ),
    "bad_words": texts(bare=False),
    "skip_reading_prefix_cache": Field(_if(lambda v: v is None or is_bool(v))),
    "skip_clone": FLAG,
    "repetition_detection": Field(
        _if(repetition_detection),
        repetitions(
            (0, 0, 0), (1, 0, 2), (1, 1, 1), (1, 2, 2), (-1, 0, 2), (4, -1, 2), (4, 1, -1),
            (2**31, 1, 2), (2**63, 2**63, 2**63), (1.0, 0, 2), (4, True, 2), (4, 1, None),
        ),
    ),
    "logits_processors": Field(
        _if(lambda v: v is None or (_list(v) is not None and all(callable(p) for p in _list(v)))),
        ([leave] * 128,),
    ),
    "watermarking": nothing_but(None),
    "prompt_logprob_token_ids": nothing_but(None),
    "prompt_logprob_start": nothing_but(None),
    "thinking_token_budget": nothing_but(None, -1),
    "routed_experts_prompt_start": nothing_but(0),
    "trace_decode_token_ids": nothing_but(None),
}  # fmt: skip


def cases(name: str) -> list[tuple[Any, str]]:
    """Values of a field, and what happens to each."""
    field = TABLE[name]
    return [(value, field.takes(value)) for value in [*ANYTHING, *field.bounds]]
