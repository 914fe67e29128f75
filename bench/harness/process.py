"""An adapter's process: asked one task at a time, and stopped while others are measured, so that an
engine whose threads wait by spinning takes nothing from them."""

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from typing import Any

from harness.engines import Setup, Variant


class EngineError(RuntimeError):
    """An engine failed at a task, or its process ended."""


class EngineProcess:
    """Use as a context manager; leaving it ends the process and its children."""

    def __init__(self, setup: Setup, variant: Variant) -> None:
        self.variant = variant
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            setup.command(variant),
            env=setup.environment(variant),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # a group of its own, for signals
        )

    def ask(self, op: str, timeout: float, **task: Any) -> dict[str, Any]:
        """The answer to one task. Raises EngineError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **task}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise EngineError(f"the process has ended: {self._said()}") from None
        answer = json.loads(self._read_line(timeout))
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer

    def _read_line(self, timeout: float) -> bytes:
        assert self._process.stdout is not None
        line, deadline = b"", time.monotonic() + timeout
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise EngineError(f"no answer within {timeout:g} s")
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                raise EngineError(f"the process has ended: {self._said()}")
            line += part
        return line

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Lets the adapter end by itself, and then sees to it that nothing of it is left."""
        self.resume()
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=20)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _said(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return " ".join(lines[-3:])[-400:] or "it said nothing"

    def __enter__(self) -> "EngineProcess":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
