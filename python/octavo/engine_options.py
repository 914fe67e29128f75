"""The engine's arguments as options of the command: one for each parameter of ``LLM`` that a
command line can spell, so that an argument added there is an option here."""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from octavo.llm import LLM


def add_engine_options(
    parser: argparse.ArgumentParser,
    only: Collection[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Adds an option for each of the engine's arguments, or for those of ``only`` that it has.

    ``defaults`` are put in the place of the engine's own.
    """
    group = parser.add_argument_group("engine", "arguments of octavo.LLM")
    texts = _descriptions()
    for name, parameter in _parameters().items():
        if only is not None and name not in only:
            continue
        default = (defaults or {}).get(name, parameter.default)
        group.add_argument(
            f"--{name.replace('_', '-')}",
            default=default,
            help=texts.get(name, "").replace("%", "%%") or None,
            **_form(str(parameter.annotation)),
        )


def engine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keywords of ``LLM`` that the command line has given."""
    given = vars(arguments)
    return {name: given[name] for name in _parameters() if name in given}


def json_object(text: str) -> dict[str, Any]:
    """The type of an option that is a JSON object."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, got {text}")
    return value


def _parameters() -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(LLM.__init__).parameters
    return {n: p for n, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _form(annotation: str) -> dict[str, Any]:
    """How an option is read, from the annotation of the parameter."""
    kinds = {kind.strip() for kind in annotation.split("|")} - {"None"}
    if kinds == {"bool"}:
        return {"action": argparse.BooleanOptionalAction}
    metavar = {"metavar": "VALUE"}
    if kinds == {"int"}:
        return {**metavar, "type": int}
    if kinds == {"float"}:
        return {**metavar, "type": float}
    if annotation.startswith("Mapping"):
        return {"metavar": "JSON", "type": json_object}
    return metavar


def _descriptions() -> dict[str, str]:
    """What LLM's documentation says of each of its arguments, without what they are by default."""
    text = inspect.getdoc(LLM) or ""  # empty under python -OO
    entries = re.findall(r"^    (\w[\w, ]*): ((?:.+\n)(?:        .+\n)*)", text, re.MULTILINE)
    return {
        name.strip(): " ".join(description.split()).removesuffix(".")
        for names, description in entries
        for name in names.split(",")
    }
