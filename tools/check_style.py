"""Checks the rules of the house that no formatter knows: lengths of files, and how headers open.

Usage: python tools/check_style.py [root]
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

DIRECTORIES = ("cpp", "cuda", "python", "tests", "tools", "examples", "bench")
HEADERS = {".h", ".cuh"}
SOURCES = {".h", ".cuh", ".cc", ".cu", ".py", ".pyi"}
MAX_LINES = 600
MAX_KERNEL_LINES = 900


def check_file(path: Path, root: Path) -> list[str]:
    lines = path.read_text().splitlines()
    name = path.relative_to(root)
    limit = MAX_KERNEL_LINES if "kernel" in str(name) else MAX_LINES
    errors = []
    if len(lines) > limit:
        errors.append(f"{name}: {len(lines)} lines, expected at most {limit}")
    if path.suffix in HEADERS:
        if not lines or not lines[0].startswith("// "):
            errors.append(f"{name}: opens without a comment, expected one on what this is")
        # A part of another file, not a header in itself, refuses by #error to stand alone.
        if "#pragma once" not in lines and not any(line.startswith("#error") for line in lines):
            errors.append(f"{name}: expected #pragma once")
    return errors


def check_tree(root: Path) -> list[str]:
    errors = []
    for directory in DIRECTORIES:
        for path in sorted((root / directory).rglob("*")):
            if path.suffix in SOURCES and "__pycache__" not in path.parts:
                errors += check_file(path, root)
    return errors


def main() -> int:
    errors = check_tree(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
