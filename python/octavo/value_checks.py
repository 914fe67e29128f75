"""Checks of single values, which raise ValidationError with the parameter's name in front."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

from octavo.errors import ValidationError, validation_error


def bad(parameter: str, value: Any, message: str) -> ValidationError:
    """The error to raise about a parameter."""
    return validation_error(message, parameter=parameter, value=value)


def is_int(value: Any) -> bool:
    """Whether the value is an integer, numpy's too; a bool is none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def require_int(name: str, value: Any) -> None:
    """Raises unless the value is an integer."""
    if not is_int(value):
        raise bad(name, value, f"{name} must be an integer, got {type(value).__name__}.")


def require_number(name: str, value: Any) -> float:
    """The value as a float; raises unless it is a number."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise bad(name, value, f"{name} must be a number, got {type(value).__name__}.")
    try:
        return float(value)
    except OverflowError:
        raise bad(name, None, f"{name} must be a number that a float can hold.") from None


def require_finite(name: str, value: float) -> None:
    """Raises for infinities and NaN."""
    if not math.isfinite(value):
        raise bad(name, value, f"{name} must be a finite number, got {value}.")


def as_list(name: str, value: Any) -> list[Any]:
    """The items of any iterable but text."""
    if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__iter__"):
        raise bad(name, value, f"{name} must be a list, got {type(value).__name__}.")
    return list(value)


def int_list(name: str, value: Any) -> list[int]:
    """A list of integers, each once, in the order given."""
    ids = as_list(name, value)
    if not all(is_int(i) for i in ids):
        raise bad(name, ids, f"{name} must contain only integers, got {ids}.")
    return list(dict.fromkeys(int(i) for i in ids))


def require_vocabulary(name: str, token_ids: Iterable[int], vocab_size: int) -> None:
    """Raises ValidationError, with vLLM's text, for ids that the model does not have."""
    outside = [i for i in token_ids if not 0 <= i < vocab_size]
    if outside:
        raise bad(
            name,
            outside,
            f"token_id(s) {outside} in {name} contain out-of-vocab token ids. "
            f"Vocabulary size: {vocab_size}",
        )
