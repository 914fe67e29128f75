"""The include table of ARCHITECTURE.md holds, and the tool that says so catches violations."""

import subprocess
import sys
from pathlib import Path

import check_layers
import check_style
import pytest

TABLE = """
| layer | holds | may include |
|---|---|---|
| `base` | | std, `third_party`, `octavo` |
| `cache` | | `base` |
| `sched` | | `cache` |
| `models` | | `base` |
| `runner` | | `models`, `sched/step_plan.h` |
| `bindings` | | `octavo`, `third_party` |
"""


@pytest.fixture
def tree(tmp_path):
    """write(path, text) into a small tree that has the table above."""

    def write(path: str, text: str) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return tmp_path

    write("ARCHITECTURE.md", TABLE)
    for layer in ("base", "cache", "sched", "models", "runner"):
        write(f"cpp/src/{layer}/noun.h", '#include "base/check.h"\n#include <vector>\n')
    return write


def test_the_tree_keeps_its_table():
    assert check_layers.check_tree(check_layers.ROOT) == []


def test_every_layer_has_a_row():
    layers = check_layers.read_table(check_layers.ROOT / "ARCHITECTURE.md")
    sources = check_layers.ROOT / "cpp" / "src"
    assert {path.name for path in sources.iterdir()} <= set(layers)
    assert layers["sched"].allowed == {"cache", "base", "octavo"}  # no tensors
    assert not {"sched", "cache", "cpu"} & layers["models"].allowed  # no scheduler, no device


def test_the_tree_keeps_its_style():
    assert check_style.check_tree(check_style.ROOT) == []


ALLOWED = [
    ("cpp/src/sched/a.cc", '#include "sched/noun.h"'),
    ("cpp/src/sched/a.cc", '#include "cache/noun.h"'),
    ("cpp/src/sched/a.cc", '#include "base/json.h"'),  # by way of cache
    ("cpp/src/sched/a.cc", "#include <sys/mman.h>"),
    ("cpp/src/runner/a.cc", '#include "sched/step_plan.h"'),
    ("cpp/src/base/a.cc", "#include <nlohmann/json.hpp>"),
    ("cpp/src/models/a.cc", '#include "octavo/error.h"'),
    ("python/bindings/a.cc", "#include <nanobind/nanobind.h>"),
    ("python/bindings/a.cc", '#include "octavo/engine.h"'),
    ("python/bindings/a.cc", '#include "noun.h"'),
]

FORBIDDEN = [
    ("cpp/src/sched/a.cc", '#include "models/noun.h"'),
    ("cpp/src/base/a.cc", '#include "cache/noun.h"'),  # upwards
    ("cpp/src/models/a.cc", '#include "sched/step_plan.h"'),
    ("cpp/src/runner/a.cc", '#include "sched/scheduler.h"'),
    ("cpp/src/runner/a.cc", '#include "cache/noun.h"'),  # only what lies below sched
    ("cpp/src/runner/a.cc", '  #  include "sched/scheduler.h"'),
    ("cpp/src/runner/a.cc", '#include "step_inputs.h"'),  # names no layer
    ("cpp/src/runner/a.cc", '#include "../sched/scheduler.h"'),
    ("cpp/src/models/a.cc", "#include <nlohmann/json.hpp>"),
    ("python/bindings/a.cc", '#include "base/check.h"'),
    ("cpp/src/attic/a.cc", ""),  # a directory without a row
]


@pytest.mark.parametrize(("path", "line"), ALLOWED)
def test_what_the_table_allows_passes(tree, path, line):
    assert check_layers.check_tree(tree(path, line + "\n")) == []


@pytest.mark.parametrize(("path", "line"), FORBIDDEN)
def test_a_violation_is_caught(tree, path, line):
    root = tree(path, "#include <vector>\n" + line + "\n")
    [error] = check_layers.check_tree(root)
    assert path.split("/")[2] in error
    tool = Path(check_layers.__file__)
    result = subprocess.run([sys.executable, tool, root], capture_output=True, text=True)
    assert result.returncode == 1
    assert error in result.stderr


def test_a_table_that_contradicts_itself_is_an_error(tree):
    root = tree("ARCHITECTURE.md", TABLE + "| `a` | | `b` |\n")
    with pytest.raises(ValueError, match="b, which has no row"):
        check_layers.check_tree(root)
    root = tree("ARCHITECTURE.md", TABLE + "| `a` | | `b` |\n| `b` | | `a` |\n")
    with pytest.raises(ValueError, match="a cycle"):
        check_layers.check_tree(root)


def test_a_missing_table_is_an_error(tree):
    with pytest.raises(ValueError, match="may include"):
        check_layers.check_tree(tree("ARCHITECTURE.md", "# Architecture\n"))


@pytest.mark.parametrize(
    ("path", "text", "error"),
    [
        ("cpp/src/base/a.h", "#pragma once\n", "comment"),
        ("cpp/src/base/a.h", "// What it is.\n", "#pragma once"),
        ("cpp/src/base/a.cc", "\n" * 601, "at most 600"),
        ("cpp/src/cpu/kernels_avx2.cc", "\n" * 901, "at most 900"),
    ],
)
def test_style_violations_are_caught(tmp_path, path, text, error):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    [found] = check_style.check_tree(tmp_path)
    assert path in found
    assert error in found
