"""Fixtures of the end-to-end tests: tiny checkpoints, the oracle of each, the real model's file,
and the parity table that is printed at the end of a run."""

from __future__ import annotations

import fnmatch
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from device_under_test import DEVICE

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A shell starts its background jobs with SIGINT ignored; the tests of interrupts need it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class ParityRow:
    difference: float = 0.0
    tokens_equal: int = 0
    tokens_compared: int = 0


class ParityTable:
    """What the parity tests measured, by (variant, device)."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], ParityRow] = {}

    def row(self, variant: str, device: str) -> ParityRow:
        return self.rows.setdefault((variant, device), ParityRow())

    def lines(self) -> list[str]:
        head = f"{'model':<30}{'back end':<10}{'largest difference':>20}{'tokens equal':>16}"
        body = [
            f"{variant:<30}{device:<10}{row.difference:>20.1e}"
            f"{f'{row.tokens_equal}/{row.tokens_compared}':>16}"
            for (variant, device), row in sorted(self.rows.items())
        ]
        return [head, *body]


_TABLE = pytest.StashKey[ParityTable]()
# For each device that a test does not run on yet: lines of a pattern of node ids and a reason.
_SKIPS = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = ParityTable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    listed = _SKIPS / f"skip_{DEVICE.partition(':')[0]}.txt"
    if not listed.exists():
        return
    lines = [line.split(maxsplit=1) for line in listed.read_text().splitlines() if line.strip()]
    skips = [(pattern, reason) for pattern, reason in lines if not pattern.startswith("#")]
    used = set()
    for item in items:
        name = item.nodeid.removeprefix("tests/python/")
        for pattern, reason in skips:
            # Not fnmatch's classes: brackets are those of parameters.
            if fnmatch.fnmatchcase(name, pattern.replace("[", "[[]")):
                item.add_marker(pytest.mark.skip(reason=f"{DEVICE}: {reason}"))
                used.add(pattern)
    files = {item.path.name for item in items}
    stale = [p for p, _ in skips if p not in used and p.partition("::")[0] in files]
    whole = not any("::" in argument for argument in items[0].config.args) if items else False
    if stale and whole and not items[0].config.option.keyword:
        raise pytest.UsageError(f"{listed.name}: {', '.join(stale)} names no test")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    table = config.stash[_TABLE]
    if table.rows:
        terminalreporter.section("parity with transformers in float32")
        for line in table.lines():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def parity_table(request: pytest.FixtureRequest) -> ParityTable:
    return request.config.stash[_TABLE]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """tiny_model(variant, **options of make_tiny_model) -> its directory, made once a session."""
    import make_tiny_model

    made: dict[str, Path] = {}

    def make(variant: str, **options: Any) -> Path:
        key = json.dumps([variant, options], sort_keys=True)
        if key not in made:
            directory = tmp_path_factory.mktemp(variant)
            made[key] = make_tiny_model.make_tiny_model(variant, directory, **options)
        return made[key]

    return make


@pytest.fixture(scope="session")
def oracle_of() -> Callable[..., Any]:
    """oracle_of(directory) -> its Oracle; the last few are kept."""
    import functools

    from oracle import Oracle

    return functools.lru_cache(maxsize=4)(Oracle)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct."""
    import fetch_demo_model

    return fetch_demo_model.fetch_demo_model()
