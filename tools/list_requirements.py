"""Prints the requirements of one group of pyproject.toml, one a line: `build`, `run` or an extra.

For `pip install $(python tools/list_requirements.py test)`, which needs no built package.
"""

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


def requirements(group: str) -> list[str]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    if group == "build":
        return config["build-system"]["requires"]
    if group == "run":
        return config["project"]["dependencies"]
    return config["project"]["optional-dependencies"][group]


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1])))
