"""The tables of a comparison, as Markdown, and the files of results."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.targets import Medians, Outcome
from harness.workloads import METRICS


def markdown(results: Mapping[str, Any], outcomes: list[Outcome]) -> str:
    medians: Medians = results["medians"]
    repeats = results["repeats"]
    lines = [
        f"# {results['model']} on {results['machine']['cpu']}, {results['date']}",
        "",
        f"Commit {results['commit']}; medians of {repeats}. Made by `{results['command']}`.",
        "",
        *_machine(results["machine"]),
        "",
        "| " + " | ".join(f"{name} {version}" for name, version in results["versions"].items())
        + " |",
        "|" + "---|" * len(results["versions"]),
        "",
        *_targets(outcomes),
        "",
        *_medians(medians, results["variants"]),
    ]  # fmt: skip
    failures = results["failures"]
    if failures:
        lines += ["", "Not measured:", "", *(f"- {key}: {why}" for key, why in failures.items())]
    return "\n".join(lines) + "\n"


def _machine(machine: Mapping[str, Any]) -> list[str]:
    lines = [
        f"Machine: {machine['cpu']}, {machine['cores']} cores ({machine['threads']} threads used), "
        f"{machine['memory_gib']} GiB, {' '.join(machine['isa'])}; Linux {machine['kernel']}; "
        f"load average {machine['load_average']:.2f} before the run."
    ]
    if "ceilings" in machine:
        lines.append(f"Its limits: {machine['ceilings']}.")
    return lines


def _targets(outcomes: list[Outcome]) -> list[str]:
    lines = [
        "| figure | Octavo | peer | ratio | target | met | best peer | ratio to it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        target, metric = outcome.target, METRICS[outcome.target.metric]
        sign = ">=" if metric.more_is_better else "<="
        wanted = f"{target.limit:g}" if target.limit is not None else f"{target.factor:g} x"
        cells = [
            f"{metric.title}, {target.octavo.partition(':')[2]} ({metric.unit})",
            number(outcome.value, metric.digits),
            _peer(outcome.peer, outcome.peer_value, metric.digits),
            number(outcome.ratio, 2),
            f"{sign} {wanted}",
            {True: "yes", False: "**no**", None: "-"}[outcome.met],
            _peer(outcome.best, outcome.best_value, metric.digits),
            number(outcome.best_ratio, 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _medians(medians: Medians, variants: list[str]) -> list[str]:
    shown = [name for name in METRICS if medians.get(name)]
    titles = [f"{METRICS[name].title} ({METRICS[name].unit})" for name in shown]
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(shown) + 1) + "|"]
    for variant in variants:
        cells = [number(medians[name].get(variant), METRICS[name].digits) for name in shown]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return lines


def _peer(name: str | None, value: float | None, digits: int) -> str:
    return "-" if name is None else f"{name} {number(value, digits)}"


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def write(folder: Path, name: str, results: Mapping[str, Any], text: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.json", folder / f"{name}.md"]
    files[0].write_text(json.dumps(results, indent=1) + "\n")
    files[1].write_text(text)
    return files
