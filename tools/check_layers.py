"""Checks every #include against the include table of ARCHITECTURE.md.

A layer may include itself, the public headers, and whatever its row names, downwards: what a layer
that it may include may itself include. A row entry with a file name (sched/step_plan.h) allows that
header alone, and nothing below it.

Usage: python tools/check_layers.py [root]
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PUBLIC = "octavo"
THIRD_PARTY = "third_party"
THIRD_PARTY_DIRECTORIES = {"nlohmann", "doctest", "nanobind", "xgrammar", "dlpack"}
SOURCE_SUFFIXES = {".h", ".cc", ".cu", ".cuh", ".in", ".inc"}
# Rows that stand for a directory elsewhere than in cpp/src.
DIRECTORIES = {
    "public": "cpp/include",
    "cuda": "cuda",
    "bindings": "python/bindings",
    "consumer": "tests/consumer",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


@dataclass
class Layer:
    name: str
    direct: list[str]
    allowed: set[str] = field(default_factory=set)  # directories, with all that lies below them
    headers: set[str] = field(default_factory=set)  # single headers


def read_table(architecture: Path) -> dict[str, Layer]:
    """The rows of the Markdown table whose header names `layer` and `may include`."""
    layers: dict[str, Layer] = {}
    columns: list[str] | None = None
    for line in architecture.read_text().splitlines():
        if not line.startswith("|"):
            columns = None
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if columns is None:
            columns = [cell.lower() for cell in cells]
        elif {"layer", "may include"} <= set(columns) and not set(line) <= set("|-: "):
            row = dict(zip(columns, cells, strict=True))
            names = re.findall(r"`([^`]+)`", row["may include"])
            name = row["layer"].strip("`/")
            layers[name] = Layer(name, [entry.rstrip("/") for entry in names])
    if not layers:
        raise ValueError(f"{architecture}: no table with the columns 'layer' and 'may include'")
    for layer in layers.values():
        _close(layer, layers, path=[])
    return layers


def _close(layer: Layer, layers: dict[str, Layer], path: list[str]) -> None:
    if layer.name in path:
        raise ValueError("include table: a cycle: " + " -> ".join([*path, layer.name]))
    for entry in layer.direct:
        if "/" in entry:
            layer.headers.add(entry)
            continue
        layer.allowed.add(entry)
        if entry in (PUBLIC, THIRD_PARTY):
            continue
        if entry not in layers:
            raise ValueError(f"include table: {layer.name} names {entry}, which has no row")
        _close(layers[entry], layers, [*path, layer.name])
        # Third-party headers are for the layer that names them.
        layer.allowed |= layers[entry].allowed - {THIRD_PARTY}
        layer.headers |= layers[entry].headers


def _is_allowed(layer: Layer, quoted: bool, target: str, root: Path) -> bool:
    # A file of its own; in cpp/src every include names its layer.
    if quoted and layer.name in DIRECTORIES:
        own = root / DIRECTORIES[layer.name] / target
        if "/" not in target or own.is_file():
            return True
    directory = target.split("/")[0]
    if directory in THIRD_PARTY_DIRECTORIES:
        return THIRD_PARTY in layer.allowed
    if not quoted:
        return True  # the standard library or the system
    return directory in {layer.name, *layer.allowed} or target in layer.headers


def check_file(path: Path, layer: Layer, root: Path) -> list[str]:
    errors = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        match = INCLUDE.match(line)
        if match and not _is_allowed(layer, match[1] == '"', match[2], root):
            place = f"{path.relative_to(root)}:{number}"
            allowed = ", ".join(sorted({layer.name, *layer.allowed, *layer.headers}))
            errors.append(f"{place}: {layer.name} may not include {match[2]}, only {allowed}")
    return errors


def check_tree(root: Path) -> list[str]:
    """One line for each violation below `root`."""
    layers = read_table(root / "ARCHITECTURE.md")
    directories = {name: root / path for name, path in DIRECTORIES.items() if name in layers}
    errors = []
    for directory in sorted((root / "cpp" / "src").iterdir()):
        if directory.name in layers:
            directories[directory.name] = directory
        else:
            errors.append(f"cpp/src/{directory.name}: no row in the table of ARCHITECTURE.md")
    for name, directory in directories.items():
        for path in sorted(directory.rglob("*")):
            if path.suffix in SOURCE_SUFFIXES:
                errors += check_file(path, layers[name], root)
    return errors


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    errors = check_tree(root)
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
