"""The progress bars of a call. tqdm is imported when the first is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from octavo.batch import Request


class ProgressBar:
    """The bar "Processed prompts", with the speed so far behind it."""

    def __init__(self, use_tqdm: bool | Callable[..., Any], total: int) -> None:
        self._bar: Any = None
        self._start = time.monotonic()
        self._input = self._output = 0
        if use_tqdm:
            make = use_tqdm if callable(use_tqdm) else _tqdm()
            self._bar = make(
                total=total,
                desc="Processed prompts",
                dynamic_ncols=True,
                postfix=self._postfix(),
            )

    def update(self, request: Request) -> None:
        """Counts a request that has ended."""
        if self._bar is None:
            return
        num_samples = len(request.samples)
        self._input += len(request.prompt_token_ids) * num_samples
        self._output += sum(len(sample.token_ids) for sample in request.samples)
        self._bar.postfix = self._postfix()
        self._bar.update(num_samples)

    def _postfix(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-9)
        return (
            f"est. speed input: {self._input / seconds:.2f} toks/s, "
            f"output: {self._output / seconds:.2f} toks/s"
        )

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()


def with_progress(
    items: list[Any], use_tqdm: bool | Callable[..., Any], what: str
) -> Iterable[Any]:
    """The items, under a bar of this description when bars are asked for."""
    if not use_tqdm or not items:
        return items
    make = use_tqdm if callable(use_tqdm) else _tqdm()
    bar: Iterable[Any] = make(items, desc=what)
    return bar


def _tqdm() -> Callable[..., Any]:
    tqdm: Callable[..., Any] = import_module("tqdm.auto").tqdm
    return tqdm
