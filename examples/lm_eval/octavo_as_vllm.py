"""Puts Octavo in vLLM's place, so that EleutherAI's lm-eval drives it through its vllm back end.

As a program it is `lm_eval` itself:

    python octavo_as_vllm.py run --model vllm --model_args pretrained=DIRECTORY --tasks NAME

Imported before `lm_eval.simple_evaluate(model="vllm", ...)`, it serves a program of your own.
"""

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# lm-eval chooses among the interfaces that vLLM has had by vLLM's version: the one Octavo follows.
VLLM_VERSION = "0.33.0"


class _Distribution(importlib.metadata.Distribution):
    """What `importlib.metadata.version("vllm")` reads."""

    def read_text(self, filename: str) -> str | None:
        metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_VERSION}\n"
        return metadata if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        raise FileNotFoundError(f"{path}: vllm is not installed; octavo is in its place")


class _OctavoAsVllm(importlib.metadata.DistributionFinder, Loader):
    """Finds `vllm` and each `vllm.name` in `octavo` and `octavo.name`: the same module objects, so
    that classes are the same under both names."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        if package != "vllm":
            return None
        original = f"octavo.{rest}" if rest else "octavo"
        return ModuleSpec(name, self, origin=original) if _exists(original) else None

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        assert module.__spec__.origin is not None
        # An import gives what is in sys.modules at its end, not the module that it began with.
        sys.modules[module.__name__] = importlib.import_module(module.__spec__.origin)

    def find_distributions(self, context: Any = None) -> Iterator[importlib.metadata.Distribution]:
        if getattr(context, "name", None) == "vllm":
            yield _Distribution()


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package that it would be in
        return False


# First, since the search for `vllm.name` would find octavo's file and make a second module of it.
sys.meta_path.insert(0, _OctavoAsVllm())

if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
