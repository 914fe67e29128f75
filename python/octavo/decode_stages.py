"""The decoders of the ``tokenizers`` library, made incremental.

A decoder turns a list of tokens into text. Here each of its steps is a stage that takes pieces of
text as they come and gives back the pieces that no later token can change; what may still change is
held back until it is settled, or until ``flush``. So the sum of all that comes out equals the
library's decode of all the tokens, for any tokens. ``stages_of`` returns None for a decoder for
which no such stages are known.
"""

from __future__ import annotations

import codecs
import json
from typing import Any, Protocol


class Stage(Protocol):
    """One step of a decoder, with the state of one sample."""

    def feed(self, pieces: list[str]) -> list[str]:
        """Takes the next pieces (the first stage: tokens); returns those that are settled."""

    def flush(self) -> list[str]:
        """The end of the text: returns what was held back."""


class _Stateless:
    def flush(self) -> list[str]:
        return []


def byte_alphabet() -> dict[str, int]:
    """Character -> byte of byte-level BPE: printable bytes stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    pairs = [(chr(b), b) for b in printable]
    return dict(pairs + [(chr(256 + i), byte) for i, byte in enumerate(others)])


_BYTES = byte_alphabet()


def token_bytes(token: str) -> bytes:
    """The bytes of a byte-level token; one with other characters stands for itself."""
    try:
        return bytes([_BYTES[char] for char in token])
    except KeyError:
        return token.encode("utf-8", errors="replace")


class ByteLevel:
    """Tokens are bytes in disguise; invalid UTF-8 becomes U+FFFD, an incomplete end is held."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, pieces: list[str]) -> list[str]:
        return [self._decoder.decode(token_bytes(piece)) for piece in pieces]

    def flush(self) -> list[str]:
        return [self._decoder.decode(b"", final=True)]


class ByteFallback:
    """Runs of tokens like <0xE2> are UTF-8; if a run is not valid, each byte becomes U+FFFD.

    The last byte of a run decides about all of it, so a run is held until another token comes.
    """

    def __init__(self) -> None:
        self._run = bytearray()

    def feed(self, pieces: list[str]) -> list[str]:
        out: list[str] = []
        for piece in pieces:
            byte = fallback_byte(piece)
            if byte is not None:
                self._run.append(byte)
                continue
            out += self.flush()
            out.append(piece)
        return out

    def flush(self) -> list[str]:
        if not self._run:
            return []
        run, self._run = bytes(self._run), bytearray()
        try:
            return [run.decode("utf-8")]
        except UnicodeDecodeError:
            return ["\ufffd"] * len(run)


def fallback_byte(piece: str) -> int | None:
    """The byte of a token like <0xE2>, None for any other token."""
    if len(piece) != 6 or not piece.startswith("<0x") or not piece.endswith(">"):
        return None
    digits = piece[3:5]
    if digits[0] == "+":  # Rust's from_str_radix takes a sign
        digits = digits[1:]
    if not all(char in "0123456789abcdefABCDEF" for char in digits):
        return None
    return int(digits, 16)


class Replace(_Stateless):
    """Replaces a literal string within each piece."""

    def __init__(self, pattern: str, content: str) -> None:
        self._pattern, self._content = pattern, content

    def feed(self, pieces: list[str]) -> list[str]:
        return [piece.replace(self._pattern, self._content) for piece in pieces]


class Strip(_Stateless):
    """Takes a character off the ends of each piece, at most so many times."""

    def __init__(self, content: str, left: int, right: int) -> None:
        self._content, self._left, self._right = content, left, right

    def feed(self, pieces: list[str]) -> list[str]:
        return [self._strip(piece) for piece in pieces]

    def _strip(self, piece: str) -> str:
        start, end = 0, len(piece)
        while start < min(self._left, len(piece)) and piece[start] == self._content:
            start += 1
        while len(piece) - end < self._right and end > start and piece[end - 1] == self._content:
            end -= 1
        return piece[start:end]


class StripStart(_Stateless):
    """Takes a character off the start of the whole text: Strip behind Fuse."""

    def __init__(self, content: str, left: int) -> None:
        self._content, self._left = content, left

    def feed(self, pieces: list[str]) -> list[str]:
        out = []
        for piece in pieces:
            while self._left > 0 and piece:
                if piece[0] != self._content:
                    self._left = 0
                    break
                piece = piece[1:]
                self._left -= 1
            out.append(piece)
        return out


class Metaspace(_Stateless):
    """A mark stands for a space; in the first token it was put there and is dropped."""

    def __init__(self, replacement: str, prepended: bool) -> None:
        self._replacement = replacement
        self._drop = prepended

    def feed(self, pieces: list[str]) -> list[str]:
        out = []
        for piece in pieces:
            out.append(piece.replace(self._replacement, "" if self._drop else " "))
            self._drop = False
        return out


class Joined(_Stateless):
    """No decoder at all: the tokens with spaces between them."""

    def __init__(self) -> None:
        self._first = True

    def feed(self, pieces: list[str]) -> list[str]:
        out = []
        for piece in pieces:
            out.append(piece if self._first else " " + piece)
            self._first = False
        return out


def stages_of(decoder: Any, *, continuation: bool) -> list[Stage] | None:
    """New stages for a ``tokenizers`` decoder, None where it is of an unknown kind.

    With ``continuation`` the text goes on from a prompt, so that nothing is taken off its start.
    """
    if decoder is None:
        return [Joined()]
    spec = json.loads(decoder.__getstate__())
    steps = spec["decoders"] if spec.get("type") == "Sequence" else [spec]
    stages: list[Stage] = []
    fused = False
    for step in steps:
        if step.get("type") == "Fuse":
            fused = True
            continue
        stage = _stage(step, fused=fused, first=not stages, continuation=continuation)
        if stage is None:
            return None
        stages.append(stage)
        fused = fused or step.get("type") == "ByteLevel"  # it too gives one piece
    return stages


def _stage(step: dict[str, Any], *, fused: bool, first: bool, continuation: bool) -> Stage | None:
    kind = step.get("type")
    if kind == "ByteLevel" and not fused:
        return ByteLevel()
    if kind == "ByteFallback" and not fused:
        return ByteFallback()
    if kind == "Replace":
        return _replace_stage(step, fused=fused)
    if kind == "Strip":
        content, left, right = step["content"], step["start"], step["stop"]
        if not fused:
            return Strip(content, left, right)
        return StripStart(content, 0 if continuation else left) if right == 0 else None
    if kind == "Metaspace" and first and not fused:
        prepended = step.get("prepend_scheme", "always") != "never"
        return Metaspace(step["replacement"], prepended and not continuation)
    return None


def _replace_stage(step: dict[str, Any], *, fused: bool) -> Stage | None:
    pattern = step.get("pattern", {}).get("String")
    if not pattern or (fused and len(pattern) != 1):  # a longer one could span two pieces
        return None
    return Replace(pattern, step["content"])
