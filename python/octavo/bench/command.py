"""``octavo bench``: its benchmarks, each a module of its own."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from octavo.bench import latency, startup, throughput

_BENCHMARKS: dict[str, ModuleType] = {
    "latency": latency,
    "throughput": throughput,
    "startup": startup,
}


def add_bench_command(commands: Any) -> None:
    """Adds ``bench`` to the commands of a parser (what its ``add_subparsers`` gave)."""
    bench = commands.add_parser("bench", help="measure latency, throughput or start-up")
    benchmarks = bench.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, module in _BENCHMARKS.items():
        parser = benchmarks.add_parser(
            name, help=module.DESCRIPTION, description=f"{module.DESCRIPTION}."
        )
        module.add_arguments(parser)
        parser.set_defaults(run=module.run)
