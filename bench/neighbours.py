"""What an engine takes from its neighbours: processor time while it is idle, and the speed of two
engines on a core each, beside the speed of each alone.

Usage: python bench/neighbours.py MODEL [--seconds 5] [--rounds 3] [--dtype auto]

Each engine is a process of its own with one thread, bound to its core. A ratio is the median over
the rounds, in each of which the engines run alone and together in turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

LEAST_RATIO = 0.95
MOST_IDLE = 0.01  # of one core


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--core", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.core is not None:
        return serve(arguments)
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        print("neighbours.py: error: this machine has one core", file=sys.stderr)
        return 1
    engines = [Engine(arguments, core) for core in cores]
    try:
        idle = [engine.ask("idle") for engine in engines]
        print(f"idle: {max(idle):.4f} of a core (at most {MOST_IDLE})")
        ratio = print_speeds(engines, arguments.rounds)
    finally:
        for engine in engines:
            engine.close()
    return 0 if max(idle) <= MOST_IDLE and ratio >= LEAST_RATIO else 1


def print_speeds(engines: list[Any], rounds: int) -> float:
    """Prints the speeds alone and together; returns the least ratio of the two."""
    ratios: list[list[float]] = [[] for _ in engines]
    for _ in range(rounds):
        alone = [engine.ask("run") for engine in engines]
        for engine in engines:
            engine.send("run")
        together = [engine.receive() for engine in engines]
        for i, (one, both) in enumerate(zip(alone, together, strict=True)):
            ratios[i].append(both / one)
            print(f"engine {i}: alone {one:.1f}, together {both:.1f} tokens/s")
    medians = [statistics.median(values) for values in ratios]
    print(f"the least ratio is {min(medians):.3f} (at least {LEAST_RATIO})")
    return min(medians)


class Engine:
    """One engine's process."""

    def __init__(self, arguments: argparse.Namespace, core: int) -> None:
        command = [sys.executable, __file__, arguments.model, "--core", str(core)]
        command += ["--seconds", str(arguments.seconds), "--dtype", arguments.dtype]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.receive()  # it is ready

    def send(self, request: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()

    def receive(self) -> float:
        assert self._process.stdout is not None
        return float(json.loads(self._process.stdout.readline()))

    def ask(self, request: str) -> float:
        self.send(request)
        return self.receive()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(arguments: argparse.Namespace) -> int:
    """An engine on one core that answers requests with one number each."""
    os.sched_setaffinity(0, {arguments.core})
    from octavo import LLM, SamplingParams

    params = SamplingParams(temperature=0, max_tokens=32, ignore_eos=True, detokenize=False)
    prompts = [[7 * i % 1000 + 100 * n for i in range(32)] for n in range(4)]
    with LLM(
        arguments.model,
        dtype=arguments.dtype,
        num_threads=1,
        max_model_len=128,
        skip_tokenizer_init=True,
        enable_prefix_caching=False,
    ) as llm:
        llm.generate(prompts, params, use_tqdm=False)
        print(0.0, flush=True)
        for request in sys.stdin:
            began, cpu = time.monotonic(), time.process_time()
            tokens = 0
            if request.strip() == "idle":
                time.sleep(arguments.seconds)
                print(json.dumps((time.process_time() - cpu) / arguments.seconds), flush=True)
                continue
            while time.monotonic() - began < arguments.seconds:
                llm.generate(prompts, params, use_tqdm=False)
                tokens += 32 * len(prompts)
            print(json.dumps(tokens / (time.monotonic() - began)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
