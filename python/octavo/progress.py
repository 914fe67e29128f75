"""The progress bars of a call. tqdm is imported when the first is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from octavo.outputs import RequestOutput

UseTqdm = bool | Callable[..., Any]


class ProgressBar:
    """The bar "Processed prompts", with the speed so far behind it.

    Args:
        use_tqdm: whether to show it; a callable is used in the place of ``tqdm``.
        total: samples that are expected, None where nobody knows.
        opened: show it now; else ``open`` does.
    """

    def __init__(self, use_tqdm: UseTqdm, total: int | None, *, opened: bool = True) -> None:
        self._use_tqdm, self._total = use_tqdm, total
        self._bar: Any = None
        self._start = time.monotonic()
        self._input = self._output = self._count = 0
        if opened:
            self.open()

    def open(self) -> None:
        """Shows the bar, with what was counted before."""
        if not self._use_tqdm or self._bar is not None:
            return
        make = self._use_tqdm if callable(self._use_tqdm) else _tqdm()
        self._bar = make(
            total=self._total,
            desc="Processed prompts",
            dynamic_ncols=True,
            postfix=self._postfix(),
        )
        if self._count:
            self._show(self._count)

    def update(self, output: RequestOutput) -> None:
        """Counts a request that has ended."""
        if not self._use_tqdm:
            return
        num_samples = len(output.outputs)
        self._count += num_samples
        self._input += len(output.prompt_token_ids or ()) * num_samples
        self._output += sum(len(sample.token_ids) for sample in output.outputs)
        if self._bar is not None:
            self._show(num_samples)

    def _show(self, num_samples: int) -> None:
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


def with_progress(items: list[Any], use_tqdm: UseTqdm, what: str) -> Iterable[Any]:
    """The items, under a bar of this description when bars are asked for."""
    if not use_tqdm or not items:
        return items
    make = use_tqdm if callable(use_tqdm) else _tqdm()
    bar: Iterable[Any] = make(items, desc=what)
    return bar


def _tqdm() -> Callable[..., Any]:
    tqdm: Callable[..., Any] = import_module("tqdm.auto").tqdm
    return tqdm
