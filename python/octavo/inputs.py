"""The forms of a prompt, and their conversion to one: text or token ids, with a cache salt."""

from __future__ import annotations

import numbers
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

from octavo.errors import NotSupportedError, validation_error


class _PromptOptions(TypedDict, total=False):
    cache_salt: str  # prompts share cached prefixes only with prompts of the same salt


class TextPrompt(_PromptOptions):
    """A prompt of text, tokenized with the model's special tokens (such as BOS)."""

    prompt: str


class _TokensPromptOptions(_PromptOptions, total=False):
    prompt: str


class TokensPrompt(_TokensPromptOptions):
    """A prompt of token ids, taken as they are. ``prompt``, if given, is only carried along."""

    prompt_token_ids: Sequence[int]


SingletonPrompt: TypeAlias = str | list[int] | TextPrompt | TokensPrompt
PromptType: TypeAlias = SingletonPrompt


@dataclass(frozen=True)
class ParsedPrompt:
    """One prompt: ``token_ids``, or ``text`` that is still to be tokenized."""

    text: str | None
    token_ids: list[int] | None
    cache_salt: str = ""


@dataclass(frozen=True)
class FailedPrompt:
    """Stands for a prompt that could not be made; whoever reads it gets the error."""

    error: Exception


def parse_prompts(prompts: Any) -> list[ParsedPrompt]:
    """All the prompts of a call, in order. A string, a dictionary or a list of ints is one prompt.

    Raises TypeError or ValidationError for a form that is not a prompt.
    """
    if isinstance(prompts, (str, dict)) or is_token_list(prompts):
        return [parse_prompt(prompts)]
    if _is_array(prompts):
        return [parse_prompt(row) for row in prompts]
    if not isinstance(prompts, Sequence) or isinstance(prompts, (bytes, bytearray)):
        raise TypeError(_not_a_prompt(prompts))
    return [parse_prompt(prompt) for prompt in prompts]


def parse_prompt(prompt: Any) -> ParsedPrompt:
    """One prompt. Raises TypeError or ValidationError for a form that is not a prompt."""
    if isinstance(prompt, str):
        return ParsedPrompt(text=prompt, token_ids=None)
    if isinstance(prompt, dict):
        return _parse_dict(prompt)
    if isinstance(prompt, (list, tuple)) or _is_array(prompt):
        return ParsedPrompt(text=None, token_ids=_token_ids(prompt))
    if isinstance(prompt, FailedPrompt):
        raise prompt.error
    raise TypeError(_not_a_prompt(prompt))


def is_token_list(value: Any) -> bool:
    """Whether a value is the token ids of one prompt (and not a list of prompts)."""
    if _is_array(value):
        return value.ndim == 1 and value.dtype.kind in "iu"
    return isinstance(value, (list, tuple)) and len(value) > 0 and _is_id(value[0])


def _parse_dict(prompt: dict[str, Any]) -> ParsedPrompt:
    if "encoder_prompt" in prompt or "decoder_prompt" in prompt:
        raise TypeError("Cannot pass encoder-decoder prompt to decoder-only models")
    for name in ("prompt_embeds", "multi_modal_data", "mm_processor_kwargs"):
        if prompt.get(name):
            raise NotSupportedError(
                f"{name} is not supported by this version of Octavo; expected text or token ids"
            )
    text = prompt.get("prompt")
    if text is not None and not isinstance(text, str):
        raise TypeError("Prompt text should be a string")
    salt = _cache_salt(prompt.get("cache_salt"))
    if prompt.get("prompt_token_ids") is not None:
        return ParsedPrompt(text, _token_ids(prompt["prompt_token_ids"]), salt)
    if text is None:
        raise TypeError("Prompt dictionary must contain text, tokens, or embeddings")
    return ParsedPrompt(text, None, salt)


def _cache_salt(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value:
        raise validation_error(
            "cache_salt must be a non-empty string", parameter="cache_salt", value=repr(value)
        )
    return value


def _token_ids(ids: Any) -> list[int]:
    if _is_array(ids):
        if ids.ndim != 1 or (ids.size > 0 and ids.dtype.kind not in "iu"):
            raise TypeError("Token prompt should be a list of integers")
        return [int(i) for i in ids.tolist()]
    if not isinstance(ids, Sequence) or isinstance(ids, (str, bytes)):
        raise TypeError("Token prompt should be a list of integers")
    if not all(_is_id(i) for i in ids):
        raise TypeError("Token prompt should be a list of integers")
    return [int(i) for i in ids]


def _is_id(value: Any) -> bool:
    return type(value) is int or (
        isinstance(value, numbers.Integral) and not isinstance(value, bool)
    )


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")  # an array exists only where numpy has been imported
    return numpy is not None and isinstance(value, numpy.ndarray)


def _not_a_prompt(value: Any) -> str:
    return (
        f"Prompt should be a string, list of tokens, or dictionary, but got {type(value).__name__}"
    )
