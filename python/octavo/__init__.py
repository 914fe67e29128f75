"""Octavo: an LLM inference engine with a C++ runtime and vLLM's Python interface.

>>> from octavo import LLM, SamplingParams
>>> llm = LLM(model="org/name")
>>> llm.generate("Hello, my name is", SamplingParams(max_tokens=16))
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from octavo._core import __version__
from octavo._install import get_cmake_dir, get_include
from octavo.beam_search import BeamSearchOutput, BeamSearchParams, BeamSearchSequence
from octavo.engine_args import AsyncEngineArgs, EngineArgs
from octavo.errors import (
    InternalError,
    ModelLoadError,
    NotSupportedError,
    OctavoError,
    OutOfMemoryError,
    ValidationError,
)
from octavo.inputs import PromptType, TextPrompt, TokensPrompt
from octavo.llm import LLM
from octavo.logprobs import FlatLogprobs, Logprob
from octavo.outputs import CompletionOutput, RequestOutput
from octavo.sampling_params import SamplingParams

logging.getLogger("octavo").addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from octavo.async_llm import AsyncLLM

__all__ = [
    "LLM",
    "AsyncEngineArgs",
    "AsyncLLM",
    "BeamSearchOutput",
    "BeamSearchParams",
    "BeamSearchSequence",
    "CompletionOutput",
    "EngineArgs",
    "FlatLogprobs",
    "InternalError",
    "Logprob",
    "ModelLoadError",
    "NotSupportedError",
    "OctavoError",
    "OutOfMemoryError",
    "PromptType",
    "RequestOutput",
    "SamplingParams",
    "TextPrompt",
    "TokensPrompt",
    "ValidationError",
    "__version__",
    "get_cmake_dir",
    "get_include",
]


def __getattr__(name: str) -> Any:
    """Loads AsyncLLM, and asyncio with it, when it is asked for."""
    if name == "AsyncLLM":
        from octavo.async_llm import AsyncLLM

        return AsyncLLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
