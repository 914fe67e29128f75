"""Log-probabilities as callers see them: a dict of Logprob by token id for each position, in a list
or in a FlatLogprobs, which holds the same in six flat lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from octavo.tokenizer import Tokenizer


@dataclass(slots=True)
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

    Position i is at ``start_indices[i]:end_indices[i]`` of the other four lists. Those of a prompt
    are no lists but read as such: they become lists when something is appended.
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
        self.start_indices += [len(self.logprobs)]
        self.token_ids += token_ids
        self.logprobs += logprobs
        self.ranks += ranks
        self.decoded_tokens += decoded_tokens
        self.end_indices += [len(self.logprobs)]

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
            return self._part(range(len(self))[index])
        return {
            self.token_ids[i]: Logprob(self.logprobs[i], self.ranks[i], self.decoded_tokens[i])
            for i in range(self.start_indices[index], self.end_indices[index])
        }

    def _part(self, where: range) -> FlatLogprobs:
        if where.step == 1 and len(where) > 0:
            first, last = self.start_indices[where[0]], self.end_indices[where[-1]]
            return FlatLogprobs(
                [i - first for i in self.start_indices[where[0] : where[-1] + 1]],
                [i - first for i in self.end_indices[where[0] : where[-1] + 1]],
                self.token_ids[first:last],
                self.logprobs[first:last],
                self.ranks[first:last],
                self.decoded_tokens[first:last],
            )
        part = FlatLogprobs()
        for i in where:
            columns = slice(self.start_indices[i], self.end_indices[i])
            part.append_fast(
                self.token_ids[columns],
                self.logprobs[columns],
                self.ranks[columns],
                self.decoded_tokens[columns],
            )
        return part

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
