"""Sleep: an engine that pauses, and gives its memory back for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from octavo import _core
from octavo.errors import OctavoError, validation_error
from octavo.inference_core import InferenceCore

_TAGS = ("weights", "kv_cache", "scheduling")
_MODES = ("abort", "wait", "keep")
_LEVELS = (0, 1, 2)
_POLL_SECONDS = 0.005


class SleepControl:
    """Puts the engine of an InferenceCore to sleep and wakes it up. May be used from any thread.

    What sleeps is the engine's to say: its level, and whether its thread is paused.
    """

    def __init__(self, core: InferenceCore) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._level = 0  # the engine's, which only this changes: to ask it may wait for a step

    @property
    def sleeping(self) -> bool:
        """Whether anything of the engine sleeps."""
        return self._level > 0 or self._core.thread().paused

    def check_memory(self) -> None:
        """Raises OctavoError while the engine has given memory back: a call would wait forever."""
        if self._level > 0:
            raise OctavoError("LLM: it is asleep; expected a call of wake_up() before")

    def sleep(self, level: Any = 1, mode: str = "abort") -> None:
        """See ``LLM.sleep``."""
        if level not in _LEVELS or isinstance(level, bool):
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
            # At level 0 too: when this returns, the step in progress has ended.
            self._change(lambda engine: engine.sleep(level) if level else None)

    def wake_up(self, tags: Iterable[str] | None = None) -> bool:
        """See ``LLM.wake_up``."""
        wanted = set(_TAGS if tags is None else [tags] if isinstance(tags, str) else tags)
        if not wanted <= set(_TAGS):
            raise validation_error(
                f"tags must be of {_TAGS}, got {sorted(wanted - set(_TAGS))}", parameter="tags"
            )
        with self._lock:
            thread = self._core.thread()
            slept = self._level > 0
            weights, kv_cache = "weights" in wanted, "kv_cache" in wanted
            if slept and (weights or kv_cache):
                self._change(lambda engine: engine.wake_up(weights=weights, kv_cache=kv_cache))
            # Nothing can run without memory; with all of it back, work goes on.
            if self._level == 0 and (slept or "scheduling" in wanted):
                thread.resume()
            return not self.sleeping

    def _change(self, change: Callable[[_core.Engine], object]) -> None:
        """Between two steps; an engine that could not do all of it still says where it is."""

        def work(engine: _core.Engine) -> None:
            try:
                change(engine)
            finally:
                self._level = engine.sleep_level()

        self._core.between_steps(work)
