"""Meter: what one rendering of a chat template may cost. jinja2 has no limits of its own, and one
expression of a template can ask for hours or for all memory.

Two rules make the bound. Whatever a template does passes ``tick``, which looks at the clock. And no
value is ever larger than ``max_size``, contents of containers counted as often as they are reached:
so one operation on values, which nothing can interrupt, is short. Belongs to the thread that
renders.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from jinja2 import TemplateRuntimeError
from jinja2.runtime import LoopContext

MAX_SOURCE = 1 << 16  # characters of a template
MAX_SIZE = 1 << 23  # of a value and of the output, in characters; and twice the size of the input
MAX_SECONDS = 1.0  # of the thread's processor time, and SECONDS_PER_CHARACTER of the input
SECONDS_PER_CHARACTER = 1e-7
MAX_BITS = 1 << 14  # of an integer
MAX_DEPTH = 200  # of containers in containers

ITEM_SIZE = 32  # what an item of a container counts besides its text
_MAX_HELD = 1 << 27  # bytes of what a template has made and still holds
_SWEEP_STEP = 1 << 25  # bytes made between two looks at what is still held
_SMALL = 1 << 10  # text below this is not followed
_ENTRY_BYTES = 256  # what following one value costs
_TICKS = 16  # between two looks at the clock
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_CONTAINERS = (list, tuple, dict, set, frozenset, *_VIEWS)


class TemplateLimitError(TemplateRuntimeError):
    """A template asks for more than a template may."""


class _Known(NamedTuple):
    """A value, what it counts, and the bytes that it takes if the template has made it."""

    value: Any  # holding it keeps its id its own
    size: int
    height: int
    num_bytes: int
    made: bool


class Meter:
    """Counts what one rendering costs, and ends it with a TemplateLimitError.

    Args:
        values: what the template sees. Larger input may cost more.
    """

    def __init__(self, values: Any = None) -> None:
        self._num_ticks = 0
        self._known: dict[int, _Known] = {}
        self._held = 0
        self._sweep_at = _SWEEP_STEP
        self._end = float("inf")
        self.max_size = sys.maxsize
        input_size = self.size_of(values)
        self.max_size = MAX_SIZE + 2 * input_size
        self._seconds = MAX_SECONDS + SECONDS_PER_CHARACTER * input_size
        self._end = time.thread_time() + self._seconds

    def tick(self) -> None:
        """One step of the template is done."""
        self._num_ticks += 1
        if self._num_ticks % _TICKS == 0 and time.thread_time() > self._end:
            raise TemplateLimitError(
                f"it took more than {self._seconds:.1f} s of processor time, the limit"
            )

    def need(self, size: int) -> None:
        """Something of this size is about to be made."""
        if size > self.max_size:
            raise TemplateLimitError(
                f"it makes a value of more than {self.max_size} characters, the limit"
            )

    def need_bits(self, bits: int) -> None:
        """An integer of so many bits is about to be made."""
        if bits > MAX_BITS:
            raise TemplateLimitError(f"it makes an integer of more than {MAX_BITS} bits, the limit")

    def size_of(self, value: Any) -> int:
        """The characters of a value, its items' included, and ``ITEM_SIZE`` for each item."""
        if isinstance(value, str):
            return len(value) + ITEM_SIZE
        if isinstance(value, _CONTAINERS):
            return self._measure(value).size
        if isinstance(value, int):
            return value.bit_length() // 3 + ITEM_SIZE
        return ITEM_SIZE  # its text is short: nothing else prints its contents

    def height_of(self, value: Any) -> int:
        """How deep the containers in a value are."""
        return self._measure(value).height if isinstance(value, _CONTAINERS) else 0

    def made(self, value: Any) -> Any:
        """The value, which the template has just made; an iterator comes back as one that ticks."""
        self.tick()
        if isinstance(value, str):
            if len(value) >= _SMALL and id(value) not in self._known:
                self.need(len(value))
                num_bytes = sys.getsizeof(value) + _ENTRY_BYTES
                self._hold(_Known(value, len(value) + ITEM_SIZE, 0, num_bytes, True))
        elif isinstance(value, int):
            self.need_bits(value.bit_length())
        elif isinstance(value, _CONTAINERS):
            known = self._measure(value)
            if not known.made:
                self._hold(known._replace(made=True))
        elif isinstance(value, Iterator) and not isinstance(value, LoopContext):
            return self.iterate(value)
        return value

    def iterate(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values, with a tick for each."""
        for value in values:
            self.tick()
            yield value

    def _measure(self, value: Any) -> _Known:
        """Of a container."""
        known = self._known.get(id(value))
        if known is not None:
            return known
        size, height, num_bytes = ITEM_SIZE, 0, sys.getsizeof(value) + _ENTRY_BYTES
        for item in _items(value):
            if isinstance(item, _CONTAINERS):
                inner = self._measure(item)
                size += inner.size
                height = max(height, inner.height)
                self.need(size)
            else:
                item_size = len(item) + ITEM_SIZE if type(item) is str else self.size_of(item)
                size += item_size
                num_bytes += 2 * (item_size if item_size < _SMALL else _SMALL)
        self.need(size)
        if height >= MAX_DEPTH:
            raise TemplateLimitError(f"it nests more than {MAX_DEPTH} containers, the limit")
        known = self._known[id(value)] = _Known(value, size, height + 1, num_bytes, False)
        return known

    def _hold(self, known: _Known) -> None:
        self._known[id(known.value)] = known
        self._held += known.num_bytes
        if self._held > self._sweep_at:
            self._sweep()

    def _sweep(self) -> None:
        """Forgets what the template has dropped: what it holds of the rest is its memory."""
        dropped = True
        while dropped:  # a container that is dropped may have been the last to hold its items
            dropped = False
            for key in [k for k, e in self._known.items() if sys.getrefcount(e.value) <= 2]:
                del self._known[key]
                dropped = True
        self._held = sum(entry.num_bytes for entry in self._known.values() if entry.made)
        if self._held > _MAX_HELD:
            raise TemplateLimitError(f"it holds more than {_MAX_HELD >> 20} MiB, the limit")
        self._sweep_at = self._held + _SWEEP_STEP


def _items(value: Any) -> Iterable[Any]:
    """The items of a container; of a dictionary, keys and values."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    items: Iterable[Any] = value
    return items
