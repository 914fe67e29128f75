"""StructuredOutputsParams: what the text of a request must look like.

The engine compiles a structure off its step thread; what a JSON schema or a grammar may hold is
checked there, when the request is submitted.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from octavo import _core
from octavo.errors import NotSupportedError
from octavo.value_checks import as_list, bad
from octavo.vocabulary import token_bytes

__all__ = [
    "GuidedDecodingParams",
    "StructuredOutputsParams",
    "check_structured_outputs",
    "from_guided_decoding",
    "token_bytes",
]

MAX_JSON_NESTING = 64
_KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")


@dataclass
class StructuredOutputsParams:
    """Exactly one structure, and options of the JSON kinds.

    Args:
        json: a JSON schema, as a dict or its text; or a pydantic model.
        regex: a regular expression that the whole text matches.
        choice: texts, one of which is the whole text.
        grammar: a grammar in EBNF, whose start is ``root``.
        json_object: True for any JSON object.
        structural_tag: a structural tag of xgrammar, as JSON text or a dict.
        disable_any_whitespace: JSON without white space between its parts.
        disable_additional_properties: objects hold only what the schema names, also where it does
            not say so.

    Raises:
        ValidationError: none or several structures, or one that is malformed.
    """

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None
    structural_tag: str | None = None

    def __post_init__(self) -> None:
        self._check_count()
        if self.whitespace_pattern is not None:
            raise NotSupportedError(
                "structured_outputs.whitespace_pattern is not supported; expected None, with "
                "disable_any_whitespace for JSON without white space"
            )
        for name in ("disable_any_whitespace", "disable_additional_properties"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise _bad(name, value, f"must be a bool, got {type(value).__name__}.")
        if self.json is not None:
            self.json = _check_json("json", self.json)
        if self.structural_tag is not None:
            tag = _check_json("structural_tag", self.structural_tag)
            self.structural_tag = tag if isinstance(tag, str) else json.dumps(tag)
        if self.choice is not None:
            self.choice = _check_choice(self.choice)
        if self.json_object is not None and self.json_object is not True:
            raise _bad(
                "json_object", self.json_object, f"must be True or None, got {self.json_object!r}."
            )
        self._check_texts()

    @property
    def kind(self) -> str:
        """The name of the field that is set."""
        return next(name for name in _KINDS if getattr(self, name) is not None)

    def to_core(self) -> _core.StructuredOutputs:
        """The engine's form."""
        kind = "json_schema" if self.kind == "json" else self.kind
        value = getattr(self, self.kind)
        text = json.dumps(value) if isinstance(value, dict) else value
        return _core.StructuredOutputs(
            kind=kind,
            text=text if isinstance(text, str) else "",
            choices=list(self.choice or ()),
            any_whitespace=not self.disable_any_whitespace,
            additional_properties=not self.disable_additional_properties,
        )

    def _check_count(self) -> None:
        given = {name: getattr(self, name) for name in _KINDS if getattr(self, name) is not None}
        if len(given) > 1:
            raise bad(
                "structured_outputs",
                None,
                "You can only use one kind of structured outputs constraint but multiple are "
                f"specified: {given}",
            )
        if not given:
            raise bad(
                "structured_outputs",
                None,
                "You must use one kind of structured outputs constraint but none are specified: "
                f"{dict.fromkeys(_KINDS)}",
            )

    def _check_texts(self) -> None:
        for name in ("regex", "grammar"):
            text = getattr(self, name)
            if text is None:
                continue
            _check_text(name, text)
            if not text.strip() and name == "grammar":
                raise _bad(name, text, "cannot be an empty string.")
        if self.regex is not None and "\0" in self.regex:
            raise _bad("regex", self.regex, "cannot contain a null character.")


@dataclass
class GuidedDecodingParams(StructuredOutputsParams):
    """What older versions of vLLM called StructuredOutputsParams. ``backend`` and
    ``disable_fallback`` are taken and mean nothing."""

    backend: str | None = None
    disable_fallback: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backend is not None:
            warnings.warn(
                f"GuidedDecodingParams: backend={self.backend!r} is ignored; there is one",
                stacklevel=3,
            )

    @staticmethod
    def from_optional(
        json: Any = None,
        regex: str | None = None,
        choice: list[str] | None = None,
        grammar: str | None = None,
        json_object: bool | None = None,
        backend: str | None = None,
        whitespace_pattern: str | None = None,
        structural_tag: str | None = None,
    ) -> GuidedDecodingParams | None:
        """The parameters, None where no structure is given."""
        given = {
            "json": json,
            "regex": regex,
            "choice": choice,
            "grammar": grammar,
            "json_object": json_object or None,
            "structural_tag": structural_tag,
        }
        if all(value is None for value in given.values()):
            return None
        return GuidedDecodingParams(**given, backend=backend, whitespace_pattern=whitespace_pattern)


def check_structured_outputs(value: Any) -> StructuredOutputsParams | None:
    """The parameters; a dict of them is taken too."""
    if value is None or isinstance(value, StructuredOutputsParams):
        return value
    return _from_dict("structured_outputs", StructuredOutputsParams, value)


def from_guided_decoding(value: Any) -> StructuredOutputsParams:
    """The parameters in the place of those of older versions of vLLM; a dict is taken too."""
    if not isinstance(value, StructuredOutputsParams):
        value = _from_dict("guided_decoding", GuidedDecodingParams, value)
    names = [field.name for field in fields(StructuredOutputsParams)]
    return StructuredOutputsParams(**{name: getattr(value, name) for name in names})


def _from_dict(name: str, kind: type[StructuredOutputsParams], value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise bad(
            name,
            value,
            f"{name} must be a {kind.__name__} or a dict, got {type(value).__name__}.",
        )
    known = {field.name for field in fields(kind)}
    unknown = sorted(str(key) for key in value if key not in known)
    if unknown:
        raise bad(name, unknown, f"{name} has unknown fields {unknown}; expected {sorted(known)}.")
    return kind(**value)


def _bad(name: str, value: Any, message: str) -> Exception:
    name = f"structured_outputs.{name}"
    shown = repr(value)
    return bad(name, shown if len(shown) <= 100 else shown[:100] + "...", f"{name} {message}")


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise _bad(name, text, f"must be a string, got {type(text).__name__}.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _bad(name, text, "must be valid Unicode, got a lone surrogate.") from None


def _check_choice(value: Any) -> list[str]:
    choices = as_list("structured_outputs.choice", value)
    if not choices:
        raise _bad("choice", choices, "cannot be an empty list.")
    for text in choices:
        _check_text("choice", text)
        if not text:
            raise _bad("choice", choices, "cannot contain an empty string.")
    return list(dict.fromkeys(choices))


def _check_json(name: str, value: Any) -> str | dict[str, Any]:
    """The field's JSON, as text or a dict; it must be an object or, as text, true or false."""
    if hasattr(value, "model_json_schema"):  # a model of pydantic, or its instance
        value = value.model_json_schema()
    if isinstance(value, Mapping):
        value = dict(value)
        try:
            content = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise _bad(name, value, f"must be JSON: {error}") from None
    else:
        if isinstance(value, bool):
            raise _bad(name, value, "must be a schema; for any object expected json_object=True.")
        _check_text(name, value)
        if not value.strip():
            raise _bad(name, value, "cannot be an empty string.")
        content = value
    try:
        parsed = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _bad(name, value, f"must be JSON: {error}") from None
    if not isinstance(parsed, (dict, bool)):
        raise _bad(name, value, f"must be a JSON object, got {type(parsed).__name__}.")
    if _nesting(parsed) > MAX_JSON_NESTING:
        raise _bad(name, value, f"must be nested at most {MAX_JSON_NESTING} levels deep.")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _nesting(value: Any) -> int:
    """How many objects and arrays lie in each other, counted without recursion."""
    deepest, stack = 0, [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if not isinstance(item, (dict, list)):
            continue
        deepest = max(deepest, depth)
        children = item.values() if isinstance(item, dict) else item
        stack += [(child, depth + 1) for child in children]
    return deepest
