"""``octavo bench startup``: from the start of a process to a model that is ready, and to its first
token. Cold is with the model's files out of the page cache, warm is with them in it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import octavo
from octavo.bench.options import (
    add_common_arguments,
    check_output_file,
    model_of,
    require_count,
    write_results,
)
from octavo.bench.statistics import mean, percentiles
from octavo.engine_options import engine_options
from octavo.errors import InternalError, validation_error
from octavo.hub import resolve_model
from octavo.progress import with_progress

DESCRIPTION = "time from the start of a process to a ready model and to the first token"

# By their names in vLLM's JSON; nothing is compiled when Octavo starts, so that one is always 0.
_METRICS = {
    "startup": "Startup time",
    "compilation": "Compilation time",
    "first_token": "Time to first token",
}
_RULE = "=" * 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-iters-cold", type=int, default=3, help="cold starts that are timed")
    parser.add_argument("--num-iters-warmup", type=int, default=1, help="starts before the warm")
    parser.add_argument("--num-iters-warm", type=int, default=3, help="warm starts that are timed")
    parser.add_argument("--input-len", type=int, default=32, help="tokens of the first prompt")
    add_common_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    require_count(arguments, 0, "num_iters_cold", "num_iters_warmup", "num_iters_warm")
    require_count(arguments, 1, "input_len")
    if not arguments.num_iters_cold + arguments.num_iters_warm:
        raise validation_error("--num-iters-cold or --num-iters-warm must be at least 1, got 0")
    check_output_file(arguments.output_json)
    probe = _Probe.of(arguments)
    cold = probe.starts(arguments.num_iters_cold, "Cold startup iterations", cold=True)
    probe.starts(arguments.num_iters_warmup, "Warmup iterations")
    warm = probe.starts(arguments.num_iters_warm, "Warm startup iterations")
    results: dict[str, Any] = {}
    print(f"{_RULE}\nSTARTUP TIME BENCHMARK RESULTS\n{_RULE}")
    for phase, starts in (("cold", cold), ("warm", warm)):
        if starts:
            results.update(_report(phase, starts))
    print(_RULE)
    write_results(arguments.output_json, results)
    return 0


@dataclass(frozen=True)
class _Probe:
    """Starts processes that load the model and generate one token."""

    task: str
    files: list[Path]

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> _Probe:
        options = engine_options(arguments)
        token = options.get("hf_token")
        path = resolve_model(model_of(arguments), revision=options.get("revision"), token=token)
        task = {"model": path, "options": options, "input_len": arguments.input_len}
        where = Path(path)
        files = [where] if where.is_file() else [file for file in where.iterdir() if file.is_file()]
        return cls(json.dumps(task), files)

    def starts(self, count: int, what: str, *, cold: bool = False) -> list[dict[str, float]]:
        """The times of this many starts, one after another."""
        found = []
        for _ in with_progress(list(range(count)), True, what):
            if cold:
                for file in self.files:
                    _drop_from_page_cache(file)
            found.append(self._start())
        return found

    def _start(self) -> dict[str, float]:
        # This package, whatever the directory holds where the command was given.
        package = str(Path(octavo.__file__).parent.parent)
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
        command = [sys.executable, "-m", "octavo.bench.startup_probe"]
        start = time.monotonic()
        # The task goes by standard input: it may hold a token, and arguments can be seen by all.
        ended = subprocess.run(
            command, env=environment, input=self.task, capture_output=True, text=True
        )
        try:
            moments = json.loads(ended.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
            message = f"bench: the process ended with status {ended.returncode}: {said}"
            raise InternalError(message) from None
        if "error" in moments:
            raise InternalError(moments["error"])
        return {
            "startup": moments["ready"] - start,
            "compilation": 0.0,
            "first_token": moments["first_token"] - start,
        }


def _drop_from_page_cache(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)  # what is not yet written would stay
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def _report(phase: str, starts: list[dict[str, float]]) -> dict[str, Any]:
    """Prints the figures of one phase; returns them by their names in vLLM's JSON."""
    values = {name: [start[name] for start in starts] for name in _METRICS}
    print(f"\n{phase.upper()} STARTUP:")
    for name, title in _METRICS.items():
        print(f"Avg {title.lower()}: {mean(values[name]):.3f} seconds")
    results: dict[str, Any] = {}
    for name, title in _METRICS.items():
        shares = percentiles(values[name])
        print(f"{title} percentiles:")
        for percentage, value in shares.items():
            print(f"  {percentage}%: {value:.3f} seconds")
        results[f"avg_{phase}_{name}_time"] = mean(values[name])
        results[f"{phase}_{name}_times"] = values[name]
        results[f"{phase}_{name}_percentiles"] = shares
    return results
