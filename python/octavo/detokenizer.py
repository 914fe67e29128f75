"""IncrementalDetokenizer: the ids of one sample to its text, as they come, with stop strings.

One belongs to one sample and is used by one thread. The pieces that ``feed`` and ``finish`` return
are whole characters, and their sum is exactly the decoded text, cut at the stop string; a stop
string is never shown in part. It never raises, whatever the ids are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octavo.decode_stages import Stage, stages_of
from octavo.tokenizer import Tokenizer


class _StagedDecoder:
    """Decodes by stages: constant time a token."""

    def __init__(self, backend: Any, stages: list[Stage], skipped: frozenset[int]) -> None:
        self._backend = backend
        self._stages = stages
        self._skipped = skipped

    def feed(self, token_id: int) -> str:
        if token_id in self._skipped or not 0 <= token_id < 2**32:
            return ""
        token = self._backend.id_to_token(token_id)
        return "" if token is None else _run([token], self._stages)

    def flush(self) -> str:
        text = ""
        for i, stage in enumerate(self._stages):
            text += _run(stage.flush(), self._stages[i + 1 :])
        return text


def _run(pieces: list[str], stages: Sequence[Stage]) -> str:
    for stage in stages:
        pieces = stage.feed(pieces)
    return "".join(pieces)


class _WholeDecoder:
    """For decoders of unknown kind: nothing is settled before the end. ``flush`` may be called at
    any time, to look at the text so far."""

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._ids: list[int] = []

    def feed(self, token_id: int) -> str:
        if 0 <= token_id < 2**32:
            self._ids.append(token_id)
        return ""

    def flush(self) -> str:
        try:
            return self._tokenizer.decode(self._ids, skip_special_tokens=self._skip)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # a foreign decoder, or a panic in Rust: not the others' business
            return ""


class IncrementalDetokenizer:
    """Turns one sample's ids into text.

    Args:
        tokenizer: whose decoder is followed.
        skip_special_tokens: leave special tokens out.
        stop: strings that end the text. The one that is complete first wins; of several that are
            complete at the same character, the first in the list.
        include_stop_str_in_output: keep the stop string in the text.
        min_tokens: stop strings that are complete within so many tokens are ignored.
        continuation: the text goes on from a prompt, so that a SentencePiece tokenizer keeps the
            space in front of the first word. Without it, the text is ``decode`` of the ids.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        skip_special_tokens: bool = True,
        stop: Sequence[str] = (),
        include_stop_str_in_output: bool = False,
        min_tokens: int = 0,
        continuation: bool = False,
    ) -> None:
        self._decoder = _make_decoder(tokenizer, skip_special_tokens, continuation)
        self._stop = [text for text in stop if text]
        self._include_stop = include_stop_str_in_output
        self._min_tokens = min_tokens
        self._parts: list[str] = []
        self._held = ""  # decoded, but possibly the beginning of a stop string
        self._seen = 0  # characters of unsettled text that were looked through
        self._done = False
        self.num_tokens = 0  # that were taken; up to and with the one that completed a stop string
        self.stop_string: str | None = None

    @property
    def text(self) -> str:
        """All that was shown so far."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self.stop_string is not None

    def feed(self, token_ids: Sequence[int]) -> str:
        """Takes the next ids; returns the text that can now be shown."""
        delta = ""
        for token_id in token_ids:
            if self._done:
                break
            self.num_tokens += 1
            delta += self._take(self._decoder.feed(token_id))
            if self._stop and isinstance(self._decoder, _WholeDecoder):
                delta += self._look(self._decoder.flush())
        return self._show(delta)

    def finish(self) -> str:
        """The sample has ended; returns the text that was held back."""
        if self._done:
            return ""
        delta = self._take(self._decoder.flush())
        if not self._done:
            delta += self._held
        self._done = True
        self._held = ""
        return self._show(delta)

    def _take(self, new: str) -> str:
        """Adds decoded text; returns what may be shown of it and of the text held before."""
        if not new or not self._stop:
            return new
        before, text = len(self._held), self._held + new
        if self.num_tokens > self._min_tokens:
            found = _first_stop(text, self._stop, before)
            if found is not None:
                return self._cut(text, *found)
        keep = _partial_stop(text, self._stop)
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut]

    def _look(self, text: str) -> str:
        """Looks for a stop string in text that is not settled yet; all of it when one is there."""
        found = None
        if self.num_tokens > self._min_tokens:
            found = _first_stop(text, self._stop, min(self._seen, len(text)))
        self._seen = len(text)
        return "" if found is None else self._cut(text, *found)

    def _cut(self, text: str, start: int, stop: str) -> str:
        self.stop_string = stop
        self._done, self._held = True, ""
        return text[: start + len(stop)] if self._include_stop else text[:start]

    def _show(self, delta: str) -> str:
        if delta:
            self._parts.append(delta)
        return delta


def continues_text(
    prompt_token_ids: Sequence[int], tokenizer: Tokenizer, skip_special_tokens: bool
) -> bool:
    """Whether the prompt has a text that its continuation goes on from."""
    skipped = tokenizer.skipped_ids if skip_special_tokens else frozenset()
    return any(i not in skipped for i in reversed(prompt_token_ids))


def _make_decoder(
    tokenizer: Tokenizer, skip_special: bool, continuation: bool
) -> _StagedDecoder | _WholeDecoder:
    backend = tokenizer.backend
    if not hasattr(backend, "get_added_tokens_decoder"):  # not a tokenizers.Tokenizer
        return _WholeDecoder(tokenizer, skip_special)
    stages = stages_of(backend.decoder, continuation=continuation)
    if stages is None:
        return _WholeDecoder(tokenizer, skip_special)
    return _StagedDecoder(backend, stages, tokenizer.skipped_ids if skip_special else frozenset())


def _first_stop(text: str, stops: Sequence[str], before: int) -> tuple[int, str] | None:
    """The start and the text of the stop string that is complete first, behind ``before``."""
    best: tuple[int, int, str] | None = None
    for stop in stops:
        start = text.find(stop, max(0, before - len(stop) + 1))
        if start >= 0 and (best is None or start + len(stop) < best[0]):
            best = (start + len(stop), start, stop)
    return None if best is None else (best[1], best[2])


def _partial_stop(text: str, stops: Sequence[str]) -> int:
    """The length of the longest end of ``text`` that a stop string begins with."""
    longest = 0
    for stop in stops:
        start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
        while start >= 0 and len(text) - start > longest:
            if stop.startswith(text[start:]):
                longest = len(text) - start
                break
            start = text.find(stop[0], start + 1)
    return longest
