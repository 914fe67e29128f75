"""Octavo: an LLM inference engine with a C++ runtime and vLLM's Python interface.

>>> from octavo import LLM, SamplingParams
>>> llm = LLM(model="org/name")
>>> llm.generate("Hello, my name is", SamplingParams(max_tokens=16))
"""

from __future__ import annotations

import logging

from octavo._core import __version__
from octavo._install import get_cmake_dir, get_include
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

__all__ = [
    "LLM",
    "CompletionOutput",
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
