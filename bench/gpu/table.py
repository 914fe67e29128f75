"""The table of the workloads on the GPU: vLLM's figures, the targets, and what was measured."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness import machine

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Row:
    """One line. Less is better in all of them. vLLM 0.25.1 on one H100 80GB HBM3 (SXM)."""

    model: str
    workload: str
    figure: str
    text: str
    digits: int
    vllm: float
    target: float | None
    floor: float | None


_L, _O = "llama-3-8b", "opt-125m"
# Of vLLM's ranges the better end.
ROWS = [
    Row(_L, "single", "ms/token", "one stream, 512 in, 256 out: ms/token", 2, 6.50, 5.4, 5.0),
    Row(_L, "single", "TTFT ms", "the same: time to the first token, ms", 1, 23.4, 15, 10),
    Row(_L, "prefill", "s", "8 prompts of 2,047, 1 out: s", 3, 0.382, 0.35, 0.30),
    Row(_L, "batch", "s", "256 mixed requests: s", 2, 9.04, 7.8, 6.8),
    Row(_L, "batch_sampled", "s", "the same, temperature 0.8, top_p 0.95: s", 2, 9.42, None, 6.8),
    Row(_L, "prefix", "s", "128 requests over a prefix of 1,024, 64 out: s", 2, 1.02, 0.75, 0.55),
    Row(_O, "small", "s", "1,000 requests of 128 in, 128 out: s", 2, 4.6, 1.0, 0.5),
    Row(_O, "single", "ms/token", "one stream, 512 in, 256 out: ms/token", 3, 2.05, 0.4, 0.1),
    Row(_O, "beam1", "s", "beam 5 x 50 tokens, 1 prompt: s", 3, 0.96, 0.05, 0.02),
    Row(_O, "beam8", "s", "beam 5 x 50 tokens, 8 prompts: s", 3, 1.95, 0.08, 0.02),
    Row(_O, "start", "s", "process start to first token: s", 2, 60, 3, None),
    Row(_L, "start", "s", "process start to first token: s", 2, 130, 6, None),
]


def engine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    options = {"device": arguments.device, "load_format": "dummy", "skip_tokenizer_init": True}
    return {**options, **arguments.engine_json}


def info_of(llm: Any) -> dict[str, Any]:
    info = llm.model_info
    names = ["dtype", "kv_cache_dtype", "device", "isa", "num_parameters", "weight_bytes"]
    names += ["kv_cache_bytes", "workspace_bytes", "num_kv_blocks", "max_model_len"]
    return {name: getattr(info, name) for name in names}


def brief(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"{result['workload']}: {result['error']}"
    figures = result["figures"].items()
    shown = ", ".join(f"{figure['median']:.4g} {name}" for name, figure in figures)
    return f"{result['workload']}: {shown}"


def markdown(results: list[dict[str, Any]]) -> str:
    by_name = {(r["model"], r["workload"]): r for r in results}
    lines = ["| model | workload | Octavo | vLLM | vLLM / Octavo | target | reached | floor |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    rows = [row for row in ROWS if (row.model, row.workload) in by_name]
    for row in rows:
        result = by_name[row.model, row.workload]
        value = result.get("figures", {}).get(row.figure, {}).get("median")
        shown = "failed" if value is None else f"{value:.{row.digits}f}"
        ratio = "" if value is None else f"{row.vllm / value:.2f}"
        reached = "" if row.target is None or value is None else _yes(value <= row.target)
        target, floor = _number(row.target), _number(row.floor)
        cells = (row.model, row.text, shown, _number(row.vllm), ratio, target, reached, floor)
        lines.append(f"| {' | '.join(cells)} |")
    known = {(row.model, row.workload) for row in rows}
    other = [r for key, r in by_name.items() if key not in known or "error" in r]
    lines += [f"\n{r['model']} {brief(r)}" for r in other]
    return "\n".join(lines)


def write(
    arguments: argparse.Namespace, results: list[dict[str, Any]], infos: dict[str, Any]
) -> None:
    arguments.out.mkdir(parents=True, exist_ok=True)
    host = machine.describe(len(os.sched_getaffinity(0)), None)
    commit = os.environ.get("OCTAVO_COMMIT") or machine.commit(ROOT)
    gpu = _gpu()
    everything = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": commit,
        "gpu": gpu,
        "machine": host,
        "engine": engine_options(arguments),
        "repeats": arguments.repeats,
        "models": infos,
        "results": results,
    }
    (arguments.out / "gpu.json").write_text(json.dumps(everything, indent=1) + "\n")
    head = f"# Workloads on {gpu.get('name', 'no GPU')}\n\n"
    head += f"Commit {commit}, {everything['date']}, driver {gpu.get('driver', '-')}, "
    head += f"{host['cores']} cores of {host['cpu']}. Medians of {arguments.repeats} repeats. "
    head += "vLLM is 0.25.1 on one H100 80GB HBM3.\n\n"
    (arguments.out / "gpu.md").write_text(head + markdown(results) + "\n")


def _gpu() -> dict[str, str]:
    names = ("name", "driver_version", "memory.total", "clocks.max.sm", "power.limit")
    command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in shown.stdout.splitlines()[0].split(",")]
    found = dict(zip(names, values, strict=False))
    return {**found, "driver": found.get("driver_version", "-")}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
