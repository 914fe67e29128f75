"""The small types of SamplingParams: kinds of sampling and of output, repetition detection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

from octavo.value_checks import bad, is_int, require_int

_INT32_MAX = 2**31 - 1


class SamplingType(IntEnum):
    """How a request draws its tokens."""

    GREEDY = 0
    RANDOM = 1
    RANDOM_SEED = 2


class RequestOutputKind(IntEnum):
    """What each result of a request that is still running holds."""

    CUMULATIVE = 0  # all of the text and the tokens so far
    DELTA = 1  # what has come since the last result
    FINAL_ONLY = 2  # there is one result, at the end


@dataclass
class RepetitionDetectionParams:
    """Ends a sample whose output goes round in circles, with ``finish_reason="repetition"`` and
    ``stop_reason="repetition_detected"``.

    Args:
        max_pattern_size: tokens in the longest pattern to look for; 0 turns it off.
        min_pattern_size: tokens in the shortest one; 0 means 1.
        min_count: how many times in a row the output must end in the pattern, at least 2.
    """

    max_pattern_size: int = 0
    min_pattern_size: int = 0
    min_count: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            name = f"repetition_detection.{field.name}"
            require_int(name, value)
            if value < 0:
                raise bad(name, value, f"{name} must be at least 0, got {value}.")
            setattr(self, field.name, int(value))
        if self.min_pattern_size > self.max_pattern_size:
            raise bad(
                "repetition_detection.min_pattern_size",
                self.min_pattern_size,
                "repetition_detection.min_pattern_size must be at most max_pattern_size="
                f"{self.max_pattern_size}, got {self.min_pattern_size}.",
            )
        if self.max_pattern_size > 0 and self.min_count < 2:
            raise bad(
                "repetition_detection.min_count",
                self.min_count,
                "repetition_detection.min_count must be at least 2 to detect repetitive patterns, "
                f"got {self.min_count}. Set max_pattern_size to 0 to detect none.",
            )

    def to_core(self) -> tuple[int, int, int]:
        """The engine's form."""
        sizes = (self.max_pattern_size, self.min_pattern_size, self.min_count)
        return tuple(min(size, _INT32_MAX) for size in sizes)  # type: ignore[return-value]


def check_output_kind(value: Any) -> RequestOutputKind:
    """The kind; its number is taken too."""
    kinds = [kind.value for kind in RequestOutputKind]
    if not is_int(value) or value not in kinds:
        names = ", ".join(f"{kind.name} ({kind.value})" for kind in RequestOutputKind)
        raise bad("output_kind", value, f"output_kind must be one of {names}, got {value!r}.")
    return RequestOutputKind(int(value))


def check_repetition_detection(value: Any) -> RepetitionDetectionParams | None:
    """The parameters; a dict of them is taken too."""
    if value is None or isinstance(value, RepetitionDetectionParams):
        return value
    if isinstance(value, Mapping):
        known = {field.name for field in fields(RepetitionDetectionParams)}
        unknown = sorted(str(name) for name in value if name not in known)
        if not unknown:
            return RepetitionDetectionParams(**value)
        raise bad(
            "repetition_detection",
            unknown,
            f"repetition_detection has unknown fields {unknown}; expected {sorted(known)}.",
        )
    raise bad(
        "repetition_detection",
        value,
        "repetition_detection must be a RepetitionDetectionParams or a dict, got "
        f"{type(value).__name__}.",
    )
