"""Logits processors: the caller's own functions, made fit for the engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from octavo.value_checks import as_list, bad

# (token ids so far, logits): the logits are changed in place, or new ones are returned.
LogitsProcessor = Callable[[Any, Any], Any]

MAX_PROCESSORS = 128


def check_logits_processors(value: Any) -> list[LogitsProcessor] | None:
    """The processors as a list, None where there are none."""
    if value is None:
        return None
    processors = as_list("logits_processors", value)
    if len(processors) > MAX_PROCESSORS:
        raise bad(
            "logits_processors",
            len(processors),
            f"logits_processors must be at most {MAX_PROCESSORS}, got {len(processors)}.",
        )
    for processor in processors:
        if not callable(processor):
            raise bad(
                "logits_processors",
                processor,
                f"logits_processors must be callables, got {type(processor).__name__}.",
            )
        _check_arguments(processor)
    return processors or None


def _check_arguments(processor: LogitsProcessor) -> None:
    try:
        signature = inspect.signature(processor)
    except (TypeError, ValueError):  # a built-in that does not tell
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise bad(
            "logits_processors",
            processor,
            "logits_processors must be callable as (token_ids, logits), got one that takes "
            f"{signature}. The form with the prompt's ids in front is not supported: a closure can "
            "carry them.",
        ) from None


def for_engine(processor: LogitsProcessor) -> Callable[[Any, Any], None]:
    """The processor as the engine calls it: what it returns is copied into the logits."""

    def process(token_ids: Any, logits: Any) -> None:
        result = processor(token_ids, logits)
        if result is None or result is logits:
            return
        shape = getattr(result, "shape", None)
        if shape is None or tuple(shape) != logits.shape:
            got = type(result).__name__ if shape is None else f"shape {tuple(shape)}"
            raise bad(
                "logits_processors",
                None,
                "logits_processors must change the logits in place or return an array of shape "
                f"{logits.shape}, got {got}.",
            )
        logits[:] = result

    return process
