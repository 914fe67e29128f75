"""What `import octavo` costs and gives."""

import logging
import subprocess
import sys
from pathlib import Path

import fake_core
import octavo
import pytest

NAMES = {
    "LLM", "SamplingParams", "RequestOutput", "CompletionOutput", "TextPrompt", "TokensPrompt",
    "PromptType", "OctavoError", "ValidationError", "ModelLoadError", "OutOfMemoryError",
    "NotSupportedError", "InternalError", "__version__", "get_cmake_dir", "get_include",
    "Logprob", "FlatLogprobs", "AsyncLLM", "EngineArgs", "AsyncEngineArgs",
    "BeamSearchParams", "BeamSearchOutput", "BeamSearchSequence",
}  # fmt: skip


def run(code: str) -> str:
    """Runs code in a new interpreter with this one's path; returns what it prints."""
    prefix = f"import sys; sys.path[:] = {sys.path!r}\n"
    if fake_core.FAKED:
        prefix += "import fake_core\n"
    command = [sys.executable, "-c", prefix + code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_public_names():
    assert set(octavo.__all__) == NAMES
    assert all(hasattr(octavo, name) for name in NAMES)


def test_nothing_heavy_is_imported():
    loaded = set(run("import octavo, sys; print(*sys.modules)").split())
    assert "octavo.llm" in loaded
    heavy = {"torch", "transformers", "tokenizers", "jinja2", "huggingface_hub", "sentencepiece",
             "tqdm", "requests", "httpx", "asyncio"}  # fmt: skip
    assert not heavy & loaded


@pytest.mark.skipif(fake_core.FAKED, reason="the stand-in has imports of its own")
def test_numpy_is_not_needed_to_import():
    assert "numpy" not in run("import octavo, sys; print(*sys.modules)").split()


def test_the_library_logs_nothing_by_itself():
    handlers = logging.getLogger("octavo").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)
    assert run("import octavo, logging; print(logging.getLogger().handlers)").strip() == "[]"


def test_the_errors_are_one_family():
    pairs = [
        (octavo.ValidationError, ValueError),
        (octavo.ModelLoadError, RuntimeError),
        (octavo.OutOfMemoryError, MemoryError),
        (octavo.NotSupportedError, NotImplementedError),
        (octavo.InternalError, RuntimeError),
    ]
    for error, builtin in pairs:
        assert issubclass(error, octavo.OctavoError)
        assert issubclass(error, builtin)


def test_the_package_is_typed():
    package = Path(octavo.__file__).parent
    assert (package / "py.typed").is_file()
    assert (package / "_core.pyi").is_file()
