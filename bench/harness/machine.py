"""What machine this is, and which commit is measured."""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

_FLAGS = ["avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni"]
_FLAGS += ["amx_tile", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm"]


def describe(threads: int, ops_bench: str | None) -> dict[str, Any]:
    text = Path("/proc/cpuinfo").read_text()
    flags = set((_field(text, "flags") or _field(text, "Features") or "").split())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    found = {
        "cpu": _field(text, "model name") or platform.processor() or platform.machine(),
        "isa": [flag for flag in _FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        "kernel": platform.release(),
        "load_average": os.getloadavg()[0],
    }
    if ops_bench:
        command = [ops_bench, "--op", "none", "--threads", str(threads), "--seconds", "0.5"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found["ceilings"] = shown.splitlines()[0]
    return found


def commit(root: Path) -> str:
    """The commit of the tree, with a mark when files differ from it."""
    head = _git(root, "rev-parse", "--short=10", "HEAD") or "unknown"
    return f"{head}-changed" if _git(root, "status", "--porcelain") else head


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]


def _field(text: str, name: str) -> str | None:
    match = re.search(rf"^{name}\s*: (.+)$", text, re.MULTILINE)
    return match[1].strip() if match else None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
