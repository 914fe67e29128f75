"""Compares Octavo with the peers that peers/setup.py has set up, all in one run, in turns.

Usage: python bench/compare.py [--model smollm2] [--workloads W1 W2 ...] [--peers openvino ...]

Prints the tables of medians and ratios and writes them to bench/results. README.md beside this file
says what is measured.
"""

import argparse
import json
import os
import shlex
import signal
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness import engines, machine, report
from harness.runs import Comparison
from harness.targets import judge
from harness.workloads import PROCESS_WORKLOADS, WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_WORKLOADS = {
    "smollm2": ["W1", "W2", "W2S", "W3", "W4", "W5", "start", "memory"],
    "llama-1b": ["W1", "W2S"],
}


def main() -> int:
    arguments = _parse()
    setup = engines.Setup(
        directory=arguments.directory.resolve(),
        model=arguments.model,
        octavo_python=arguments.octavo_python,
        octavo_path=arguments.octavo_path,
        octavo_options=arguments.octavo_options,
    )
    variants, failures = _available(setup, arguments)
    if not variants:
        print("compare.py: error: nothing to measure; run bench/peers/setup.py", file=sys.stderr)
        return 1
    described = machine.describe(arguments.threads, arguments.ops_bench)
    models = setup.directory / "models"
    corpus = json.loads((models / "smollm2/corpus.json").read_text())["ids"]
    config = json.loads((models / arguments.model / "safetensors/config.json").read_text())
    comparison = Comparison(
        setup,
        variants,
        corpus,
        threads=arguments.threads,
        timeout=arguments.timeout,
        kv_bytes_per_token=_kv_bytes_per_token(config),
        fresh=arguments.fresh,
    )
    # Ends like an interrupt, so that no engine is left behind, stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        comparison.run(arguments.workloads, arguments.repeats)
    except KeyboardInterrupt:
        print("Interrupted: what there is follows", file=sys.stderr)
    medians = comparison.medians()
    results: dict[str, Any] = {
        "model": arguments.model,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": machine.commit(ROOT),
        "command": shlex.join(["python", *sys.argv]),
        "machine": described,
        "repeats": arguments.repeats,
        "variants": [variant.name for variant in variants],
        "versions": {v.engine: setup.version(v) for v in variants},
        "medians": medians,
        "values": comparison.values,
        "failures": {**failures, **comparison.failures},
    }
    text = report.markdown(results, judge(arguments.model, medians))
    print(text)
    name = f"{results['date']}-{machine.slug(described['cpu'])}-{results['commit']}"
    if arguments.model != "smollm2":
        name += f"-{arguments.model}"
    for file in report.write(arguments.results, name, results, text):
        print(f"Wrote {file}", file=sys.stderr)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(DEFAULT_WORKLOADS), default="smollm2")
    parser.add_argument("--workloads", nargs="+", choices=[*WORKLOADS, *PROCESS_WORKLOADS])
    parser.add_argument(
        "--peers", nargs="*", help="openvino, llama_cpp:q8_0 and so on; default: all that are there"
    )
    parser.add_argument("--octavo", nargs="*", help="bf16, q8_0, q4_1, int8; default: but int8")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--timeout", type=float, default=1800, help="seconds of one task")
    parser.add_argument("--fresh", action="store_true", help="a new process for every turn")
    parser.add_argument("--directory", type=Path, default=ROOT / ".bench", help="of the peers")
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results")
    parser.add_argument("--octavo-python", default=sys.executable, help="that has Octavo")
    parser.add_argument("--octavo-path", help="PYTHONPATH of Octavo's processes")
    parser.add_argument(
        "--octavo-options", type=json.loads, default={}, metavar="JSON", help="arguments of LLM"
    )
    parser.add_argument("--ops-bench", metavar="FILE", help="the C++ program: adds the ceilings")
    arguments = parser.parse_args()
    arguments.workloads = arguments.workloads or DEFAULT_WORKLOADS[arguments.model]
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    try:
        arguments.variants = engines.choose(engines.OCTAVO, arguments.octavo)
        arguments.variants += engines.choose(engines.PEERS, arguments.peers)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def _available(
    setup: engines.Setup, arguments: argparse.Namespace
) -> tuple[list[engines.Variant], dict[str, str]]:
    """The variants that are set up, and of the others what is missing."""
    missing = {variant.name: setup.missing(variant) for variant in arguments.variants}
    there = [variant for variant in arguments.variants if missing[variant.name] is None]
    return there, {name: f"{what} is missing" for name, what in missing.items() if what}


def _kv_bytes_per_token(config: dict[str, Any]) -> int:
    """Keys and values in two bytes each."""
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    kv_heads = config.get("num_key_value_heads") or heads
    return int(2 * config["num_hidden_layers"] * kv_heads * head_dim * 2)


if __name__ == "__main__":
    sys.exit(main())
