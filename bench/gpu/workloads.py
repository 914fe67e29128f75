"""The workloads on the GPU, against vLLM's figures and the targets: a table and all values.

Usage: python bench/gpu/workloads.py --out FOLDER [--models llama-3-8b opt-125m] [--workloads ...]

Models have the shapes of Llama-3-8B and OPT-125m and random weights; prompts are random token ids;
everything is greedy, ignores the end of sequence and has a fixed length. Each model runs in a
process of its own, so that a workload that brings it down ends none of the others; `start` times
processes from their beginning. See README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpu import table
from gpu.models import MODELS, write_config

SEED = 20261123
Figures = dict[str, float]
Requests = list[tuple[list[int], int]]  # ids, and how many tokens to generate


@dataclass(frozen=True)
class Workload:
    name: str
    models: tuple[str, ...]
    run: Callable[[Any, Prompts], Figures]  # one repeat
    warm: Callable[[Any, Prompts], object] | None = None  # of the same shape; None: `run`


@dataclass
class Prompts:
    """Random ids, drawn anew for each workload."""

    vocab_size: int
    draw: random.Random = field(default_factory=lambda: random.Random(SEED))

    def ids(self, count: int) -> list[int]:
        most = min(self.vocab_size, 50000)
        return [self.draw.randrange(1000, most) for _ in range(count)]

    def batch(self, count: int, num_in: int, num_out: int) -> Requests:
        return [(self.ids(num_in), num_out) for _ in range(count)]


def generate(llm: Any, requests: Requests, **fields: Any) -> float:
    """Seconds from the call to the last result. Prefixes of earlier calls are forgotten."""
    from octavo import SamplingParams, TokensPrompt
    from octavo.bench.options import raise_errors

    prompts = [TokensPrompt(prompt_token_ids=ids) for ids, _ in requests]
    values = {"temperature": 0.0, "ignore_eos": True, "detokenize": False, **fields}
    params = [SamplingParams(max_tokens=count, **values) for _, count in requests]
    llm.reset_prefix_cache()
    start = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - start
    raise_errors(outputs)
    for (_, count), output in zip(requests, outputs, strict=True):
        if len(output.outputs[0].token_ids) != count:
            raise RuntimeError(f"{len(output.outputs[0].token_ids)} tokens; expected {count}")
    return seconds


def single(llm: Any, prompts: Prompts) -> Figures:
    ids = prompts.ids(512)
    first = statistics.median(generate(llm, [(ids, 1)]) for _ in range(5))
    seconds = generate(llm, [(ids, 256)])
    return {
        "ms/token": seconds / 256 * 1e3,
        "ms/token after the first": (seconds - first) / 255 * 1e3,
        "TTFT ms": first * 1e3,
    }


def throughput(llm: Any, requests: Requests, **fields: Any) -> Figures:
    seconds = generate(llm, requests, **fields)
    num_in, num_out = sum(len(ids) for ids, _ in requests), sum(count for _, count in requests)
    return {"s": seconds, "in tokens/s": num_in / seconds, "out tokens/s": num_out / seconds}


def prefill(llm: Any, prompts: Prompts) -> Figures:
    return throughput(llm, prompts.batch(8, 2047, 1))


def mixed(prompts: Prompts) -> Requests:
    """Input length, ids and output length are drawn in turn."""
    requests = []
    for _ in range(256):
        ids = prompts.ids(prompts.draw.randint(32, 1024))
        requests.append((ids, prompts.draw.randint(32, 512)))
    return requests


def batch(llm: Any, prompts: Prompts) -> Figures:
    return throughput(llm, mixed(prompts))


def batch_sampled(llm: Any, prompts: Prompts) -> Figures:
    return throughput(llm, mixed(prompts), temperature=0.8, top_p=0.95, seed=1)


def small(llm: Any, prompts: Prompts) -> Figures:
    return throughput(llm, prompts.batch(1000, 128, 128))


def prefix(llm: Any, prompts: Prompts) -> Figures:
    shared = prompts.ids(1024)
    return throughput(llm, [(shared + prompts.ids(64), 64) for _ in range(128)])


def beams(count: int) -> Callable[[Any, Prompts], Figures]:
    def run(llm: Any, prompts: Prompts) -> Figures:
        from octavo import BeamSearchParams, TokensPrompt

        some = [TokensPrompt(prompt_token_ids=prompts.ids(64)) for _ in range(count)]
        params = BeamSearchParams(beam_width=5, max_tokens=50, ignore_eos=True)
        llm.reset_prefix_cache()
        start = time.perf_counter()
        outputs = llm.beam_search(some, params)
        seconds = time.perf_counter() - start
        if any(len(output.sequences) != 5 for output in outputs):
            raise RuntimeError("a search has not five beams")
        return {"s": seconds}

    return run


LLAMA, OPT = "llama-3-8b", "opt-125m"
WORKLOADS = [
    Workload("single", (LLAMA, OPT), single),
    Workload("prefill", (LLAMA,), prefill),
    Workload("prefix", (LLAMA,), prefix),
    Workload("batch", (LLAMA,), batch),
    Workload("batch_sampled", (LLAMA,), batch_sampled),
    Workload("small", (OPT,), small),
    Workload("beam1", (OPT,), beams(1)),
    Workload("beam8", (OPT,), beams(8)),
]
START = "start"


def median_of(repeats: list[Figures]) -> dict[str, dict[str, Any]]:
    return {
        name: {"median": statistics.median(r[name] for r in repeats),
               "values": [r[name] for r in repeats]}
        for name in repeats[0]
    }  # fmt: skip


def emit(result: dict[str, Any]) -> None:
    print(json.dumps(result), flush=True)


def run_child(arguments: argparse.Namespace) -> int:
    """Loads one model, runs its workloads, prints a line of JSON for each."""
    from octavo import LLM

    start = time.perf_counter()
    try:
        llm = LLM(arguments.directory, **json.loads(arguments.engine))
    except Exception as error:
        emit({"ended": f"{type(error).__name__}: {error}"})
        return 1
    emit({"loaded": time.perf_counter() - start, "info": table.info_of(llm)})
    for name in arguments.workloads:
        workload = next(w for w in WORKLOADS if w.name == name)
        emit({"workload": name, "begun": True})
        try:
            repeats = []
            for repeat in range(arguments.repeats + 1):
                prompts = Prompts(llm.model_info.vocab_size)
                gc.collect()
                figures = workload.run(llm, prompts)
                if repeat > 0:  # the first one warms up
                    repeats.append(figures)
            emit({"workload": name, "figures": median_of(repeats)})
        except Exception as error:
            traceback.print_exc()
            emit({"workload": name, "error": f"{type(error).__name__}: {error}"})
    llm.close()
    return 0


def child_lines(command: list[str], timeout: float) -> Iterable[dict[str, Any]]:
    """The lines of JSON of a process, as they come; the last says how it ended, unless well."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    deadline = time.monotonic() + timeout
    stop = subprocess.Popen([sys.executable, "-c", _WATCH, str(process.pid), str(timeout)])
    try:
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                yield json.loads(line)
        code = process.wait()
        if code != 0:
            late = time.monotonic() >= deadline
            yield {"ended": f"the time of {timeout:.0f} s was up" if late else f"status {code}"}
    finally:
        stop.kill()
        stop.wait()
        if process.poll() is None:
            process.kill()
            process.wait()


# A read of a pipe has no time limit; another process ends the child.
_WATCH = """
import os, signal, sys, time
time.sleep(float(sys.argv[2]))
os.kill(int(sys.argv[1]), signal.SIGKILL)
"""


def run_model(
    model: str, names: list[str], directory: Path, arguments: argparse.Namespace, deadline: float
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The results of a model's workloads. A process that ends early is begun again for the rest."""
    results: list[dict[str, Any]] = []
    info: dict[str, Any] = {}

    def add(name: str, result: dict[str, Any]) -> None:
        results.append({"model": model, **result, "workload": name})
        left.remove(name)
        print(f"{model} {table.brief(results[-1])}", flush=True)

    left = list(names)
    while left:
        command = [sys.executable, __file__, "--child", "--directory", str(directory)]
        command += ["--engine", json.dumps(table.engine_options(arguments))]
        command += ["--repeats", str(arguments.repeats), "--workloads", *left]
        current, reason = None, ""
        for line in child_lines(command, max(deadline - time.monotonic(), 1.0)):
            if "info" in line:
                info = {**line["info"], "load_seconds": line["loaded"]}
            elif "ended" in line:
                reason = reason or line["ended"]
            elif "begun" in line:
                current = line["workload"]
            else:
                add(line["workload"], line)
                current = None
        # What ran; or all, where the model was not even loaded.
        for name in [current] if current else list(left):
            add(name, {"error": reason or "the process ended early"})
    return results, info


def run_start(model: str, directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Process start to first token, by `octavo bench startup`."""
    result: dict[str, Any] = {"model": model, "workload": START}
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "octavo", "bench", "startup", str(directory)]
        command += ["--num-iters-cold", "0", "--num-iters-warmup", "0"]
        command += ["--num-iters-warm", str(arguments.repeats), "--output-json", file.name]
        for name, value in table.engine_options(arguments).items():
            flag = f"--{name.replace('_', '-')}"
            command += [flag] if value is True else [flag, str(value)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if ended.returncode != 0:
            said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
            return {**result, "error": f"status {ended.returncode}: {said}"}
        values = json.loads(Path(file.name).read_text())
    result["figures"] = median_of(
        [
            {"s": first, "ready s": ready}
            for first, ready in zip(
                values["warm_first_token_times"], values["warm_startup_times"], strict=True
            )
        ]
    )
    return result


def parse_arguments() -> argparse.Namespace:
    names = [w.name for w in WORKLOADS] + [START]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder of gpu.json and gpu.md")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=[LLAMA, OPT])
    parser.add_argument("--workloads", nargs="+", choices=names, default=names)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--time-limit", type=float, default=3600.0, help="seconds of all together")
    parser.add_argument("--engine-json", type=json.loads, default={}, help="options of LLM")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.child and arguments.out is None:
        parser.error("--out FOLDER is needed")
    return arguments


def run_all(arguments: argparse.Namespace) -> int:
    deadline = time.monotonic() + arguments.time_limit
    results: list[dict[str, Any]] = []
    infos: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            directory = write_config(Path(folder), model)
            names = [w.name for w in WORKLOADS if model in w.models or model == "tiny"]
            names = [name for name in names if name in arguments.workloads]
            if START in arguments.workloads:
                try:
                    results.append(run_start(model, directory, arguments))
                except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
                    results.append({"model": model, "workload": START, "error": str(error)})
                print(f"{model} {table.brief(results[-1])}", flush=True)
            if names:
                found, infos[model] = run_model(model, names, directory, arguments, deadline)
                results += found
            table.write(arguments, results, infos)  # what there is, should the rest be cut off
    print(table.markdown(results), flush=True)
    return int(any("error" in result for result in results))


if __name__ == "__main__":
    arguments = parse_arguments()
    sys.exit(run_child(arguments) if arguments.child else run_all(arguments))
