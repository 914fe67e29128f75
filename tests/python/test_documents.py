"""Every block of Python in the README and the documents runs, on the real SmolLM2."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import fake_core
import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "docs/*.md", "examples/templates/README.md"]
# What a block leaves to its reader.
GIVEN: dict[str, dict[str, Any]] = {"docs/structured_outputs.md": {"schema": {"type": "object"}}}
NAMES = re.compile(r'"(HuggingFaceTB/SmolLM2-135M-Instruct|org/name)"')

pytestmark = pytest.mark.skipif(fake_core.FAKED, reason="needs the compiled engine")


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def documents() -> list[str]:
    found = [path for pattern in DOCUMENTS for path in sorted(ROOT.glob(pattern))]
    return [str(path.relative_to(ROOT)) for path in found if blocks(path)]


def run(source: str, name: str, namespace: dict[str, Any]) -> None:
    """Runs a block, which may await."""
    code = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, namespace)
    if inspect.iscoroutine(result):
        asyncio.run(result)


def test_documents_have_blocks() -> None:
    assert {"README.md", "docs/beam_search.md", "docs/chat.md", "docs/sampling.md"} <= set(
        documents()
    )


@pytest.mark.parametrize("document", documents())
def test_blocks_run(
    document: str, smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """In order, those of a document in one namespace."""
    (tmp_path / "prompts.txt").write_text("One\nTwo\nThree\n")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "document", **GIVEN.get(document, {})}
    try:
        for block in blocks(ROOT / document):
            run(NAMES.sub(repr(str(smollm2)), block), document, namespace)
    finally:
        if "llm" in namespace:
            namespace["llm"].close()
    capsys.readouterr()
