"""Runs: every engine in turn, again and again, and the figures that they gave."""

import statistics
import sys
import time
from collections import defaultdict
from typing import Any

from harness.engines import Setup, Variant
from harness.process import EngineError, EngineProcess
from harness.workloads import (
    MEMORY_WORKLOAD,
    PROCESS_WORKLOADS,
    WORKLOADS,
    Corpus,
    Requests,
    metrics_of,
)

_START_TEXT = "The capital of France is"
_START_IDS = [504, 3575, 282, 4649, 314]  # the same, for an engine that takes no text
_MB = 1e6


class Comparison:
    """The engines' processes and what they have measured.

    Args:
        setup: where everything is.
        variants: the engines.
        ids: the text that prompts are cut from.
        fresh: end each process after its turn, for models of which few fit into memory.
    """

    def __init__(
        self,
        setup: Setup,
        variants: list[Variant],
        ids: list[int],
        *,
        threads: int,
        timeout: float,
        kv_bytes_per_token: int,
        fresh: bool,
    ) -> None:
        self._setup = setup
        self._variants = variants
        self._corpus = Corpus(ids)
        self._threads = threads
        self._timeout = timeout
        self._kv_bytes_per_token = kv_bytes_per_token
        self._fresh = fresh
        self._processes: dict[str, EngineProcess] = {}
        self._loaded_for = (0, 0)  # tokens and sequences
        self.values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.failures: dict[str, str] = {}

    def run(self, workloads: list[str], repeats: int) -> None:
        """Repeat 0 of each workload warms up. Errors of an engine end only its own turns."""
        batches = [name for name in workloads if name not in PROCESS_WORKLOADS]
        shapes = [WORKLOADS[name](Corpus([0])) for name in batches]
        if shapes:
            self._loaded_for = (
                max(shape.num_tokens for shape in shapes),
                max(shape.num_sequences for shape in shapes),
            )
        try:
            for repeat in range(repeats + 1):
                for name in batches:
                    self._run_workload(name, repeat)
                if "start" in workloads:
                    self._each("start", repeat, self._measure_start)
        finally:
            for process in self._processes.values():
                process.close()
            self._processes.clear()
        if "memory" in workloads:
            self._each("memory", 1, self._measure_memory)

    def medians(self) -> dict[str, dict[str, float]]:
        return {
            metric: {name: statistics.median(values) for name, values in by_variant.items()}
            for metric, by_variant in self.values.items()
        }

    def _run_workload(self, name: str, repeat: int) -> None:
        requests = WORKLOADS[name](self._corpus)

        def measure(variant: Variant) -> dict[str, float]:
            process = self._process(variant)
            process.resume()
            try:
                turns = 2 if self._fresh and repeat else 1  # a new process has to be warmed up
                for turn in range(turns):
                    work = requests if turn == turns - 1 else WORKLOADS[name](self._warm_corpus())
                    answer = process.ask("run", self._timeout, **_task(work))
                _check(requests, answer)
                return metrics_of(name, requests, answer)
            finally:
                process.pause()
                if self._fresh:
                    self._processes.pop(variant.name).close()

        if self._fresh and not repeat:
            return
        self._each(name, repeat, measure)

    def _warm_corpus(self) -> Corpus:
        return Corpus([7 + i % 1000 for i in range(100_003)])

    def _each(self, name: str, repeat: int, measure: Any) -> None:
        """One turn of every engine; each repeat begins with another one."""
        first = repeat % len(self._variants)
        for variant in self._variants[first:] + self._variants[:first]:
            key = f"{name} {variant.name}"
            if key in self.failures:
                continue
            begin = time.perf_counter()
            try:
                found = measure(variant)
            except EngineError as error:
                self.failures[key] = str(error)
                self._forget(variant)
                self._say(f"{key}: failed: {error}")
                continue
            shown = ", ".join(f"{metric} {value:.4g}" for metric, value in found.items())
            label = f"repeat {repeat}" if repeat else "warm-up"
            self._say(f"{key}: {label}: {shown} ({time.perf_counter() - begin:.1f} s)")
            if repeat:
                for metric, value in found.items():
                    self.values[metric][variant.name].append(value)

    def _process(self, variant: Variant) -> EngineProcess:
        """The engine's process, which is started and loads its model when it is first wanted."""
        if variant.name not in self._processes:
            process = EngineProcess(self._setup, variant)
            self._processes[variant.name] = process
            self._load(process, variant, *self._loaded_for)
        return self._processes[variant.name]

    def _load(
        self, process: EngineProcess, variant: Variant, max_tokens: int, max_sequences: int
    ) -> None:
        process.ask(
            "load",
            self._timeout,
            model=str(self._setup.model_path(variant)),
            threads=self._threads,
            max_tokens=max_tokens,
            max_sequences=max_sequences,
            options=self._setup.options(variant),
        )

    def _forget(self, variant: Variant) -> None:
        """A process that has failed is not asked again; another workload starts a new one."""
        process = self._processes.pop(variant.name, None)
        if process is not None:
            process.close()

    def _measure_start(self, variant: Variant) -> dict[str, float]:
        with EngineProcess(self._setup, variant) as process:
            answer = process.ask(
                "start",
                self._timeout,
                model=str(self._setup.model_path(variant)),
                threads=self._threads,
                text=_START_TEXT,
                ids=_START_IDS,
                options=self._setup.options(variant),
            )
            seconds = time.perf_counter() - process.started
        return {"start": answer.get("seconds", seconds)}

    def _measure_memory(self, variant: Variant) -> dict[str, float]:
        requests = WORKLOADS[MEMORY_WORKLOAD](self._corpus)
        with EngineProcess(self._setup, variant) as process:
            self._load(process, variant, requests.num_tokens, requests.num_sequences)
            process.ask("run", self._timeout, **_task(requests))
            answer = process.ask("memory", self._timeout)
        tokens = sum(map(len, requests.prompts)) + sum(requests.output_lens)
        cache = tokens * answer.get("kv_bytes_per_token", self._kv_bytes_per_token)
        over = answer["peak_bytes"] - answer.get("weight_bytes", 0) - cache
        return {"memory peak": answer["peak_bytes"] / _MB, "memory over": over / _MB}

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _task(requests: Requests) -> dict[str, Any]:
    return {
        "prompts": requests.prompts,
        "output_lens": requests.output_lens,
        "beams": requests.beams,
    }


def _check(requests: Requests, answer: dict[str, Any]) -> None:
    """Every engine must have done the same work."""
    expected = sum(requests.output_lens)
    if not requests.beams and answer["num_tokens"] != expected:
        raise EngineError(f"expected {expected} tokens, got {answer['num_tokens']}")
