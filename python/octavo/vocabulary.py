"""What each token id adds to a text, as bytes: what a grammar has to know of a tokenizer."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Any

from octavo import decode_stages
from octavo.tokenizer import Tokenizer

_Step = Callable[[str], str]

# Byte-level BPE's alphabet as a table of the codecs module: far faster than a loop over characters.
_BYTE_TABLE = codecs.charmap_build(
    "".join(char for char, _ in sorted(decode_stages.byte_alphabet().items(), key=lambda p: p[1]))
)


def token_bytes(tokenizer: Tokenizer, vocab_size: int) -> list[bytes]:
    """The bytes that each of ``vocab_size`` ids adds in the middle of a text.

    b"" for special tokens, which have no text, for ids that the tokenizer does not have, and for
    those whose text depends on their neighbours.
    """
    backend = tokenizer.backend
    if not hasattr(backend, "get_added_tokens_decoder"):  # not a tokenizers.Tokenizer
        return _by_decoding(tokenizer, vocab_size)
    convert = _converter(backend.decoder)
    if convert is None:
        return _by_decoding(tokenizer, vocab_size)
    skipped = tokenizer.skipped_ids
    tokens = [backend.id_to_token(i) for i in range(vocab_size)]
    return [
        b"" if token is None or i in skipped else convert(token) for i, token in enumerate(tokens)
    ]


def _converter(decoder: Any) -> Callable[[str], bytes] | None:
    """From a token to its bytes, None for a decoder that does not work token by token."""
    stages = decode_stages.stages_of(decoder, continuation=True)
    if stages is None:
        return None
    steps: list[_Step] = []
    for i, stage in enumerate(stages):
        if isinstance(stage, decode_stages.ByteLevel):
            return _byte_level(steps) if i + 1 == len(stages) else None
        if isinstance(stage, decode_stages.ByteFallback):
            later = _steps_of(stages[i + 1 :])
            return None if later is None else _byte_fallback(steps, later)
        step = _step(stage)
        if step is None:
            return None
        steps.append(step)
    return lambda token: _encode(_apply(steps, token))


def _steps_of(stages: Sequence[decode_stages.Stage]) -> list[_Step] | None:
    steps = [_step(stage) for stage in stages]
    return None if None in steps else [step for step in steps if step is not None]


def _step(stage: decode_stages.Stage) -> _Step | None:
    """A stage that has no memory, as a function."""
    if isinstance(stage, decode_stages.Joined):
        return lambda piece: " " + piece
    stateless = (
        decode_stages.Replace,
        decode_stages.Strip,
        decode_stages.StripStart,
        decode_stages.Metaspace,
    )
    if isinstance(stage, stateless):
        return lambda piece: stage.feed([piece])[0]
    return None


def _apply(steps: Sequence[_Step], piece: str) -> str:
    for step in steps:
        piece = step(piece)
    return piece


def _encode(text: str) -> bytes:
    return text.encode("utf-8", errors="replace")


def _byte_level(steps: list[_Step]) -> Callable[[str], bytes]:
    def convert(token: str) -> bytes:
        token = _apply(steps, token) if steps else token
        try:
            return codecs.charmap_encode(token, "strict", _BYTE_TABLE)[0]
        except UnicodeEncodeError:  # an added token, which stands for itself
            return _encode(token)

    return convert


def _byte_fallback(before: list[_Step], after: list[_Step]) -> Callable[[str], bytes]:
    def convert(token: str) -> bytes:
        token = _apply(before, token)
        byte = decode_stages.fallback_byte(token)
        return _encode(_apply(after, token)) if byte is None else bytes([byte])

    return convert


def _by_decoding(tokenizer: Tokenizer, vocab_size: int) -> list[bytes]:
    """For any other tokenizer: what an id adds between two tokens of which one is known."""
    result = [b""] * vocab_size
    known = []
    for i in _known_ids(tokenizer, vocab_size):
        byte = _byte_of(tokenizer, i)
        if byte is None:
            known.append(i)
        else:
            result[i] = bytes([byte])
    anchor = _anchor(tokenizer, known)
    if anchor is None:
        return result
    frame = tokenizer.decode([anchor, anchor])
    texts = _decode_all(tokenizer, [[anchor, i, anchor] for i in known])
    # The space between two tokens belongs to one of them: which one, all tokens tell together.
    cut = _common_prefix([frame, *texts])
    start, end = frame[:cut], frame[cut:]
    for i, text in zip(known, texts, strict=True):
        if text.startswith(start) and text.endswith(end) and len(text) > len(frame):
            result[i] = _encode(text[cut : len(text) - len(end)])
    return result


def _common_prefix(texts: Sequence[str]) -> int:
    """The number of characters with which all the texts begin."""
    first, last = min(texts), max(texts)
    differing = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return next(differing, min(len(first), len(last)))


def _known_ids(tokenizer: Tokenizer, vocab_size: int) -> list[int]:
    specials = tokenizer.skipped_ids | set(tokenizer.all_special_ids)
    ids = set(tokenizer.get_vocab().values()) - specials
    return sorted(i for i in ids if 0 <= i < vocab_size)


def _anchor(tokenizer: Tokenizer, known: Sequence[int]) -> int | None:
    """An ordinary token: one letter or, where there is none, any that is letters alone."""
    texts = dict(zip(known, _decode_all(tokenizer, [[i] for i in known]), strict=True))
    plain = [i for i in known if texts[i].strip().isalpha()]
    return min(plain, key=lambda i: len(texts[i]), default=None)


def _decode_all(tokenizer: Tokenizer, sequences: list[list[int]]) -> list[str]:
    backend = tokenizer.backend
    if hasattr(backend, "get_added_tokens_decoder"):
        return list(backend.decode_batch(sequences, skip_special_tokens=False))
    return [tokenizer.decode(ids) for ids in sequences]


def _byte_of(tokenizer: Tokenizer, token_id: int) -> int | None:
    """The byte of a SentencePiece byte token."""
    token = tokenizer.convert_ids_to_tokens(token_id)
    byte = decode_stages.fallback_byte(token) if isinstance(token, str) else None
    if byte is None:
        return None
    # Only where the decoder takes it for a byte, too, and does not spell it out.
    return None if token in tokenizer.decode([token_id]) else byte
