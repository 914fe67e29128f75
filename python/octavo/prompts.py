"""Makes token ids of a prompt, within the model's limits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from octavo.errors import ValidationError, validation_error
from octavo.inputs import ParsedPrompt
from octavo.tokenizer import Tokenizer

_TOKENIZATION_KWARGS = frozenset(
    ("add_special_tokens", "truncate_prompt_tokens", "truncation_side")
)


@dataclass(frozen=True)
class PromptLimits:
    """What a prompt has to keep: at most ``max_model_len - min_output`` ids, each below
    ``vocab_size``."""

    max_model_len: int
    vocab_size: int
    min_output: int = 1


def render_prompt(
    prompt: ParsedPrompt,
    tokenizer: Tokenizer | None,
    limits: PromptLimits,
    tokenization_kwargs: Mapping[str, Any],
) -> tuple[str | None, list[int]]:
    """The prompt's text (None where only ids were given) and its ids.

    Raises ValidationError for an empty prompt, an id out of vocabulary, or a prompt that leaves no
    room for an output token.
    """
    unknown = sorted(set(tokenization_kwargs) - _TOKENIZATION_KWARGS)
    if unknown:
        warnings.warn(f"tokenization_kwargs: {unknown} are ignored", stacklevel=4)
    ids = prompt.token_ids
    if ids is None:
        ids = _encode(prompt.text or "", tokenizer, limits, tokenization_kwargs)
    check_token_ids(ids, limits)
    return prompt.text, ids


def check_token_ids(ids: list[int], limits: PromptLimits) -> None:
    """Raises ValidationError unless the ids are a prompt that the model can take."""
    if not ids:
        raise ValidationError("The decoder prompt cannot be empty")
    if min(ids) < 0 or max(ids) >= limits.vocab_size:
        outside = next(i for i in ids if not 0 <= i < limits.vocab_size)
        raise validation_error(
            f"Token id {outside} is out of vocabulary", parameter="prompt_token_ids", value=outside
        )
    length, most = len(ids), limits.max_model_len
    if length > most:
        raise validation_error(
            f"This model's maximum context length is {most} tokens. However, your prompt contains "
            f"{length} input tokens, which exceeds this limit even without any output tokens. "
            "Please reduce the length of the input prompt.",
            parameter="input_tokens",
            value=length,
        )
    if length + limits.min_output > most:
        raise validation_error(
            f"The decoder prompt (length {length}) plus the number of requested output tokens (at "
            f"least 1) is longer than the maximum model length of {most}. Make sure that "
            "`max_model_len` is no smaller than the number of text tokens (prompt + requested "
            "output tokens).",
            parameter="input_tokens",
            value=length,
        )


def _encode(
    text: str,
    tokenizer: Tokenizer | None,
    limits: PromptLimits,
    kwargs: Mapping[str, Any],
) -> list[int]:
    if tokenizer is None:
        raise ValidationError(
            "a prompt of text needs a tokenizer; with skip_tokenizer_init=True, expected "
            "prompt_token_ids"
        )
    ids = tokenizer.encode(text, add_special_tokens=bool(kwargs.get("add_special_tokens", True)))
    keep = kwargs.get("truncate_prompt_tokens")
    if keep is None:
        return ids
    if not isinstance(keep, int) or isinstance(keep, bool) or keep < -1 or keep == 0:
        raise validation_error(
            f"truncate_prompt_tokens must be -1 or at least 1, got {keep!r}",
            parameter="truncate_prompt_tokens",
            value=keep,
        )
    keep = limits.max_model_len - limits.min_output if keep == -1 else keep
    if kwargs.get("truncation_side", "left") == "right":
        return ids[:keep]
    return ids[-keep:]
