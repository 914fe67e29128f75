"""What compare.py and an engine's adapter say to each other, a JSON object a line.

An adapter runs in its engine's own environment. It reads tasks from standard input and answers each
on standard output (which it keeps to itself: what the engine prints goes to standard error):

    {"op": "load", "model": PATH, "threads": 2, "max_tokens": 12345, "max_sequences": 64,
     "options": {}}  ->  {}
        the most that the KV cache must hold at once; what blocks are not full of comes on top
    {"op": "run", "prompts": [[id, ...], ...], "output_lens": [n, ...], "beams": 0}
        ->  {"seconds": s, "first_token": s, "last_token": s, "num_first": n, "num_tokens": n}
        all prompts are handed in at once, greedy, ignoring the end of sequence; seconds count from
        the call to the last result, and so do the times of the first prompt's tokens; num_first
        came together with the first one, because the engine was faster than who read its stream
    {"op": "memory"}  ->  {"peak_bytes": n, "weight_bytes": n, "kv_bytes_per_token": n}
    {"op": "start", "model": PATH, "threads": 2, "text": "...", "ids": [...], "options": {}}
        ->  {} after the first token; the process has just begun. {"seconds": s} where the adapter
        has itself timed a program of the engine's own. The ids are the text's.

A failure is answered by {"error": "..."}. The end of the input ends the adapter.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Task = dict[str, Any]
Answer = dict[str, Any]


class Timer:
    """The moments of one workload."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.first: float | None = None
        self.last: float | None = None
        self.num_first = 0

    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    def token(self, count: int = 1) -> None:
        """One or more tokens of the first prompt have come, all at this moment."""
        self.last = self.elapsed()
        if self.first is None:
            self.first, self.num_first = self.last, count

    def answer(self, num_tokens: int) -> Answer:
        """Called when all results are there."""
        return {
            "seconds": self.elapsed(),
            "first_token": self.first,
            "last_token": self.last,
            "num_first": self.num_first,
            "num_tokens": num_tokens,
        }


class Adapter:
    """One engine. Subclasses import it where they first need it, so that `start` counts that."""

    def load(self, task: Task) -> None:
        raise NotImplementedError

    def run(self, task: Task) -> Answer:
        raise NotImplementedError

    def start(self, task: Task) -> Answer:
        raise NotImplementedError

    def memory(self) -> Answer:
        """Peak memory of this process; subclasses add what they know of weights and KV cache."""
        return {"peak_bytes": peak_bytes(os.getpid())}

    def close(self) -> None:
        pass


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had, files that it has mapped included."""
    with open(f"/proc/{pid}/status") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main(make: Callable[[], Adapter]) -> None:
    """Serves the tasks of standard input."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    adapter = make()
    try:
        for line in sys.stdin:
            task = json.loads(line)
            try:
                operation = getattr(adapter, task["op"])
                answer = (operation() if task["op"] == "memory" else operation(task)) or {}
            except Exception as error:
                text = " ".join(str(error).split())[:500]
                answer = {"error": f"{type(error).__name__}: {text}"}
            print(json.dumps(answer), file=out, flush=True)
    finally:
        adapter.close()
