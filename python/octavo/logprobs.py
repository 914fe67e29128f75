"""Log-probabilities: collects those of a sample, and makes those of a prompt."""

from __future__ import annotations

from octavo.logprob_types import FlatLogprobs, Logprob, LogprobsOnePosition, TokenTexts
from octavo.prompt_logprobs import PromptLogprobs, prompt_logprobs_of

__all__ = [
    "FlatLogprobs",
    "Logprob",
    "LogprobsBuilder",
    "LogprobsOnePosition",
    "PromptLogprobs",
    "SampleLogprobs",
    "TokenTexts",
    "prompt_logprobs_of",
]

SampleLogprobs = list[LogprobsOnePosition] | FlatLogprobs


class LogprobsBuilder:
    """Collects the log-probabilities of one sample.

    Args:
        flat: make a FlatLogprobs in the place of a list.
        texts: fills in ``decoded_token``; None leaves it None.
    """

    def __init__(self, *, flat: bool, texts: TokenTexts | None) -> None:
        self._positions: list[LogprobsOnePosition | None] | FlatLogprobs
        self._positions = FlatLogprobs() if flat else []
        self._texts = texts
        self.cumulative = 0.0  # of the tokens that were sampled

    @property
    def positions(self) -> list[LogprobsOnePosition | None] | FlatLogprobs:
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
