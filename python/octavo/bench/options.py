"""What the benchmarks' command lines have in common: the model, the engine's arguments, counts, and
the file of results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octavo.engine_options import add_engine_options, engine_options
from octavo.errors import InternalError, validation_error
from octavo.llm import LLM
from octavo.model_handle import ModelHandle
from octavo.outputs import RequestOutput


def add_common_arguments(
    parser: argparse.ArgumentParser, defaults: Mapping[str, Any] | None = None
) -> None:
    """MODEL, --model, --output-json and the engine's arguments, with ``defaults`` over theirs."""
    parser.add_argument("model", nargs="?", help="directory, .gguf file or hub name")
    parser.add_argument("--model", dest="model_option", metavar="MODEL", help="the same")
    parser.add_argument("--output-json", metavar="FILE", help="write the figures to this file")
    add_engine_options(parser, defaults=defaults)


def model_of(arguments: argparse.Namespace) -> str:
    """The model that the command line names. Raises ValidationError."""
    names = {name for name in (arguments.model, arguments.model_option) if name is not None}
    if len(names) != 1:
        given = "none was given" if not names else f"got {' and '.join(sorted(names))}"
        raise validation_error(f"one model is expected, as MODEL or --model MODEL; {given}")
    return str(names.pop())


def load(arguments: argparse.Namespace) -> LLM:
    """The LLM that the command line describes."""
    return LLM(model_of(arguments), **engine_options(arguments))


def require_count(arguments: argparse.Namespace, least: int, *names: str) -> None:
    """Raises ValidationError unless these options are at least ``least`` (or not given)."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise validation_error(f"{option(name)} must be at least {least}, got {value}")


def option(name: str) -> str:
    """The spelling of an option on the command line."""
    return f"--{name.replace('_', '-')}"


def require_room(llm: ModelHandle, num_tokens: int) -> None:
    """Raises ValidationError when the longest request has more tokens than the model takes."""
    most = llm.model_info.max_model_len
    if num_tokens > most:
        raise validation_error(
            f"max_model_len must be at least the sum of input and output length, {num_tokens}; "
            f"it is {most}"
        )


def raise_errors(outputs: list[RequestOutput]) -> None:
    """Raises InternalError when a request has failed: its time means nothing."""
    failed = sum(any(s.finish_reason == "error" for s in o.outputs) for o in outputs)
    if failed:
        raise InternalError(f"bench: {failed} of {len(outputs)} requests ended with an error")


def check_output_file(path: str | None) -> None:
    """Raises OSError before the work when its results could not be written after it."""
    if path is None:
        return
    if Path(path).is_dir():
        raise IsADirectoryError(f"--output-json: {path} is a directory; expected a file's name")
    if not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"--output-json: the directory of {path} does not exist")


def write_results(path: str | None, results: Mapping[str, Any]) -> None:
    """Writes the results as vLLM does, where a file is named."""
    if path is not None:
        Path(path).write_text(json.dumps(results, indent=4) + "\n")
