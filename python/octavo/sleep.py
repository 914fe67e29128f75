"""Sleep: an engine that pauses, and gives its memory back for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from octavo.errors import OctavoError, validation_error
from octavo.inference_core import InferenceCore

_TAGS = ("weights", "kv_cache", "scheduling")
_MODES = ("abort", "wait", "keep")
_ASLEEP = {0: {"scheduling"}, 1: {"scheduling", "kv_cache"}, 2: set(_TAGS)}  # by level
_POLL_SECONDS = 0.005


class SleepControl:
    """Puts the engine of an InferenceCore to sleep and wakes it up. May be used from any thread."""

    def __init__(self, core: InferenceCore) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._asleep: set[str] = set()

    @property
    def sleeping(self) -> bool:
        """Whether anything of the engine sleeps."""
        return bool(self._asleep)

    def check_memory(self) -> None:
        """Raises OctavoError while the engine has given memory back: a call would wait forever."""
        if self._asleep - {"scheduling"}:
            raise OctavoError("LLM: it is asleep; expected a call of wake_up() before")

    def sleep(self, level: Any = 1, mode: str = "abort") -> None:
        """See ``LLM.sleep``."""
        if level not in _ASLEEP or isinstance(level, bool):
            raise validation_error(f"level must be 0, 1 or 2, got {level!r}", parameter="level")
        if mode not in _MODES:
            raise validation_error(f"mode must be one of {_MODES}, got {mode!r}", parameter="mode")
        with self._lock:
            thread = self._core.thread()
            if mode == "abort":
                self._core.abort(list(self._core.in_flight))
            while mode == "wait" and thread.num_unfinished() > 0:
                time.sleep(_POLL_SECONDS)
            thread.pause()
            self._asleep |= {"scheduling"}
            # At level 0 too: when this returns, the step in progress has ended.
            self._core.between_steps(lambda engine: engine.sleep(level) if level else None)
            self._asleep |= _ASLEEP[level]

    def wake_up(self, tags: Iterable[str] | None = None) -> bool:
        """See ``LLM.wake_up``."""
        wanted = set(_TAGS if tags is None else [tags] if isinstance(tags, str) else tags)
        if not wanted <= set(_TAGS):
            raise validation_error(
                f"tags must be of {_TAGS}, got {sorted(wanted - set(_TAGS))}", parameter="tags"
            )
        with self._lock:
            thread = self._core.thread()
            memory = self._asleep & wanted - {"scheduling"}
            if memory:
                self._core.between_steps(
                    lambda engine: engine.wake_up(
                        weights="weights" in memory, kv_cache="kv_cache" in memory
                    )
                )
                self._asleep -= memory
            # Nothing can run without memory; with all of it back, work goes on.
            if self._asleep == {"scheduling"} and (memory or "scheduling" in wanted):
                thread.resume()
                self._asleep.clear()
            return not self._asleep
