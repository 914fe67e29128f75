"""Log-probabilities as callers see them: a dict of Logprob by token id for each position, in a list
or in a FlatLogprobs, which holds the same in six flat lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from octavo.tokenizer import Tokenizer


@dataclass
class Logprob:
    """The log-probability of one token at one position.

    ``rank`` is the number of tokens that are at least as probable, 1 for the most probable one.
    ``decoded_token`` is the token's text by itself, None with ``detokenize=False``.
    """

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


LogprobsOnePosition = dict[int, Logprob]


@dataclass
class FlatLogprobs(MutableSequence[LogprobsOnePosition]):
    """Acts as a list of ``dict[int, Logprob]`` that can only grow, with far fewer objects.

    Position i is at ``start_indices[i]:end_indices[i]`` of the other four lists.
    """

    start_indices: list[int] = field(default_factory=list)
    end_indices: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ranks: list[int | None] = field(default_factory=list)
    decoded_tokens: list[str | None] = field(default_factory=list)

    def append(self, value: LogprobsOnePosition | None) -> None:
        """Adds one position; None is one without entries."""
        entries = value or {}
        self.append_fast(
            list(entries),
            [entry.logprob for entry in entries.values()],
            [entry.rank for entry in entries.values()],
            [entry.decoded_token for entry in entries.values()],
        )

    def append_fast(
        self,
        token_ids: Sequence[int],
        logprobs: Sequence[float],
        ranks: Iterable[int | None],
        decoded_tokens: Iterable[str | None],
    ) -> None:
        """Adds one position from its columns."""
        self.start_indices.append(len(self.logprobs))
        self.token_ids += token_ids
        self.logprobs += logprobs
        self.ranks += ranks
        self.decoded_tokens += decoded_tokens
        self.end_indices.append(len(self.logprobs))

    def extend(self, values: Iterable[LogprobsOnePosition | None]) -> None:
        """Adds several positions."""
        for value in list(values):
            self.append(value)

    def __len__(self) -> int:
        return len(self.start_indices)

    @overload
    def __getitem__(self, index: int) -> LogprobsOnePosition: ...
    @overload
    def __getitem__(self, index: slice) -> FlatLogprobs: ...
    def __getitem__(self, index: int | slice) -> LogprobsOnePosition | FlatLogprobs:
        if isinstance(index, slice):
            part = FlatLogprobs()
            for i in range(*index.indices(len(self))):
                where = slice(self.start_indices[i], self.end_indices[i])
                part.append_fast(
                    self.token_ids[where],
                    self.logprobs[where],
                    self.ranks[where],
                    self.decoded_tokens[where],
                )
            return part
        return {
            self.token_ids[i]: Logprob(self.logprobs[i], self.ranks[i], self.decoded_tokens[i])
            for i in range(self.start_indices[index], self.end_indices[index])
        }

    def __iter__(self) -> Iterator[LogprobsOnePosition]:
        for i in range(len(self)):
            yield self[i]

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError("Cannot set logprobs in FlatLogprobs")

    def __delitem__(self, index: Any) -> None:
        raise TypeError("Cannot delete logprobs from FlatLogprobs")

    def insert(self, index: int, value: Any) -> None:
        """Raises TypeError: it can only grow at its end."""
        raise TypeError("Cannot insert logprobs to FlatLogprobs")


SampleLogprobs = list[LogprobsOnePosition] | FlatLogprobs
PromptLogprobs = list[LogprobsOnePosition | None] | FlatLogprobs


class TokenTexts:
    """The text of each token by itself, decoded once. May be used from several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._texts: dict[int, str] = {}

    def of(self, token_id: int) -> str:
        """What ``decode([token_id])`` gives, "" for an id that the tokenizer does not have."""
        text = self._texts.get(token_id)
        if text is None:
            text = self._texts[token_id] = self._decode(token_id)
        return text

    def _decode(self, token_id: int) -> str:
        try:
            return self._tokenizer.decode([token_id])
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # a foreign decoder, or a panic in Rust: not the request's business
            return ""


class LogprobsBuilder:
    """Collects the log-probabilities of one sample.

    Args:
        flat: make a FlatLogprobs in the place of a list.
        texts: fills in ``decoded_token``; None leaves it None.
    """

    def __init__(self, *, flat: bool, texts: TokenTexts | None) -> None:
        self._positions: PromptLogprobs = FlatLogprobs() if flat else []
        self._texts = texts
        self.cumulative = 0.0  # of the tokens that were sampled

    @property
    def positions(self) -> Any:
        """A copy of what was collected."""
        return self._positions[:]

    def add_none(self) -> None:
        """Adds a position without log-probabilities."""
        self._positions.append(None)

    def add(self, token_ids: list[int], logprobs: list[float], ranks: list[int]) -> None:
        """Adds a position: the token that was sampled, then others, where it may be again."""
        self.cumulative += logprobs[0]
        if token_ids[0] in token_ids[1:]:
            again = token_ids.index(token_ids[0], 1)
            token_ids, logprobs, ranks = (
                [*column[:again], *column[again + 1 :]] for column in (token_ids, logprobs, ranks)
            )
        texts = [None if self._texts is None else self._texts.of(i) for i in token_ids]
        if isinstance(self._positions, FlatLogprobs):
            self._positions.append_fast(token_ids, logprobs, ranks, texts)
        else:
            columns = zip(logprobs, ranks, texts, strict=True)
            entries = [Logprob(logprob, rank, text) for logprob, rank, text in columns]
            self._positions.append(dict(zip(token_ids, entries, strict=True)))
