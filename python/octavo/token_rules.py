"""The fields of SamplingParams about tokens and texts: stop, stop_token_ids, logit_bias,
allowed_token_ids, bad_words and logprob_token_ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.tokenizer import Tokenizer
from octavo.value_checks import (
    as_list,
    bad,
    int_list,
    is_int,
    require_finite,
    require_number,
)

MAX_STOP_TOKEN_IDS = 128
MAX_BIASES = 1024
MAX_ALLOWED = 1024
MAX_BAD_WORDS = 128
MAX_LOGPROB_TOKEN_IDS = 128
MAX_TEXTS = 1024  # of stop and of bad_words
MAX_CHARACTERS = 65536  # of all of them


def check_stop_token_ids(value: Any) -> list[int]:
    """The ids, each once."""
    ids = int_list("stop_token_ids", [] if value is None else value)
    if len(ids) > MAX_STOP_TOKEN_IDS:
        raise bad(
            "stop_token_ids",
            len(ids),
            f"stop_token_ids must have at most {MAX_STOP_TOKEN_IDS} ids, got {len(ids)}.",
        )
    return ids


def check_logit_bias(value: Any) -> dict[int, float] | None:
    """The biases by token id, None where there are none."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise bad(
            "logit_bias",
            value,
            f"logit_bias must be a dict of token ids to numbers, got {type(value).__name__}.",
        )
    if len(value) > MAX_BIASES:
        raise bad(
            "logit_bias",
            len(value),
            f"logit_bias must have at most {MAX_BIASES} entries, got {len(value)}.",
        )
    biases = {}
    for token_id, bias in value.items():
        if not is_int(token_id):
            raise bad(
                "logit_bias",
                token_id,
                "logit_bias must have integers as keys (SamplingParams.from_optional converts "
                f"strings), got {token_id!r}.",
            )
        number = require_number("logit_bias", bias)
        require_finite("logit_bias", number)
        biases[int(token_id)] = number
    return biases or None


def cast_logit_bias(value: Any) -> Any:
    """As OpenAI's API has it: keys may be strings, and biases are clamped to [-100, 100]."""
    if not isinstance(value, Mapping):
        return value  # for check_logit_bias to refuse
    biases = {}
    for token_id, bias in value.items():
        try:
            key = int(token_id)
        except (TypeError, ValueError):
            raise bad(
                "logit_bias",
                token_id,
                f"logit_bias must have integers as keys, got {token_id!r}.",
            ) from None
        number = require_number("logit_bias", bias)
        biases[key] = number if number != number else min(100.0, max(-100.0, number))
    return biases


def check_allowed_token_ids(value: Any) -> list[int] | None:
    """The ids, each once; None allows all."""
    if value is None:
        return None
    ids = int_list("allowed_token_ids", value)
    if not ids:
        raise bad("allowed_token_ids", ids, "allowed_token_ids is not None and empty!")
    if len(ids) > MAX_ALLOWED:
        raise bad(
            "allowed_token_ids",
            len(ids),
            f"allowed_token_ids must have at most {MAX_ALLOWED} ids, got {len(ids)}.",
        )
    return ids


def check_texts(name: str, value: Any) -> list[str]:
    """The values of ``stop`` or ``bad_words`` as a list; each is a text that is not empty."""
    texts = as_list(name, [] if value is None else value)
    if len(texts) > MAX_TEXTS:
        text = f"{name} must have at most {MAX_TEXTS} strings, got {len(texts)}."
        raise bad(name, len(texts), text)
    for text in texts:
        if not isinstance(text, str):
            kind = type(text).__name__
            raise bad(name, texts, f"{name} must contain only strings, got {kind}.")
        if not text:
            raise bad(name, texts, f"{name} cannot contain an empty string.")
    length = sum(map(len, texts))
    if length > MAX_CHARACTERS:
        text = f"{name} must have at most {MAX_CHARACTERS} characters in all, got {length}."
        raise bad(name, length, text)
    return texts


def check_logprob_token_ids(value: Any, logprobs: int | None) -> list[int] | None:
    """The ids, each once, None where there are none; ``logprobs`` must agree with their number."""
    if value is None:
        return None
    given = as_list("logprob_token_ids", value)
    ids = int_list("logprob_token_ids", given)
    if len(ids) > MAX_LOGPROB_TOKEN_IDS:
        raise bad(
            "logprob_token_ids",
            len(ids),
            f"logprob_token_ids must have at most {MAX_LOGPROB_TOKEN_IDS} ids, got {len(ids)}.",
        )
    if ids and logprobs is not None and logprobs != len(given):
        raise bad(
            "logprobs",
            logprobs,
            "logprobs must be None or the number of logprob_token_ids when those are given: "
            f"expected {len(given)}, got {logprobs}.",
        )
    return ids or None


def tokenize_bad_words(
    words: Sequence[str], tokenizer: Tokenizer | None, vocab_size: int
) -> list[list[int]]:
    """The token sequences that spell the words, with a space in front and without.

    Raises ValidationError without a tokenizer, for an id out of vocabulary, or for too many.
    """
    if not words:
        return []
    if tokenizer is None:
        raise bad(
            "bad_words",
            list(words),
            "bad_words needs a tokenizer; expected an LLM with skip_tokenizer_init=False",
        )
    sequences: list[list[int]] = []
    for word in words:
        sequences += [ids for ids in _spellings(word, tokenizer) if ids not in sequences]
    outside = [i for ids in sequences for i in ids if not 0 <= i < vocab_size]
    if outside:
        raise bad(
            "bad_words",
            list(words),
            f"The model vocabulary size is {vocab_size}, but the following tokens were specified "
            f"as bad: {outside}. All token id values should be integers satisfying: "
            f"0 <= token_id <= {vocab_size - 1}.",
        )
    if len(sequences) > MAX_BAD_WORDS:
        raise bad(
            "bad_words",
            len(sequences),
            f"bad_words must be at most {MAX_BAD_WORDS} token sequences after tokenization, got "
            f"{len(sequences)}.",
        )
    return sequences


def _spellings(word: str, tokenizer: Tokenizer) -> list[list[int]]:
    """The word's ids at the beginning of a text and, where they are others, behind a space."""
    bare = word.lstrip()
    if not bare:  # nothing but spaces or line breaks: they are what is meant
        return [ids for ids in [tokenizer.encode(word, add_special_tokens=False)] if ids]
    plain = tokenizer.encode(bare, add_special_tokens=False)
    spaced = tokenizer.encode(" " + bare, add_special_tokens=False)
    # A sequence that ends like a banned one is banned with it.
    implied = not spaced or (bool(plain) and spaced[-len(plain) :] == plain)
    return [ids for ids in (plain, [] if implied else spaced) if ids]
