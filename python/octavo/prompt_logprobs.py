"""The log-probabilities of a prompt, which stay in the engine's arrays: objects are made for the
positions that are looked at, so that those of a long prompt take megabytes and not gigabytes.

The results are immutable but for a FlatLogprobs that is appended to, and may be read from several
threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from octavo.logprob_types import FlatLogprobs, Logprob, LogprobsOnePosition, TokenTexts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Columns = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]

_CHUNK = 4096  # entries that are made at once where a column is gone through


class PromptLogprobs(Sequence["LogprobsOnePosition | None"]):
    """Acts as a list with an entry for each token of a prompt: None for the first, then a
    ``dict[int, Logprob]`` by token id with the prompt's token first. A slice is another view.

    Args:
        token_ids, logprobs, ranks: of all positions from the second on, one after another.
        ends: where each of these positions ends in them.
        texts: the text of a token, None for none.
    """

    def __init__(
        self,
        token_ids: NDArray[np.int32],
        logprobs: NDArray[np.float32],
        ranks: NDArray[np.int32],
        ends: NDArray[np.int64],
        texts: Callable[[int], str] | None,
    ) -> None:
        self._columns = (token_ids, logprobs, ranks, ends)
        self._texts = texts
        self._where = range(len(ends) + 1)  # the prompt's positions that this view has

    def __len__(self) -> int:
        return len(self._where)

    @overload
    def __getitem__(self, index: int) -> LogprobsOnePosition | None: ...
    @overload
    def __getitem__(self, index: slice) -> PromptLogprobs: ...
    def __getitem__(self, index: int | slice) -> LogprobsOnePosition | PromptLogprobs | None:
        where = self._where[index]
        if isinstance(where, int):
            return self._at(where)
        view = PromptLogprobs(*self._columns, self._texts)
        view._where = where
        return view

    def __iter__(self) -> Iterator[LogprobsOnePosition | None]:
        return map(self._at, self._where)

    def _at(self, position: int) -> LogprobsOnePosition | None:
        if position == 0:
            return None
        token_ids, logprobs, ranks, ends = self._columns
        where = slice(int(ends[position - 2]) if position > 1 else 0, int(ends[position - 1]))
        columns = (token_ids[where], logprobs[where], ranks[where])
        return {
            token_id: Logprob(logprob, rank, self._texts(token_id) if self._texts else None)
            for token_id, logprob, rank in zip(*(c.tolist() for c in columns), strict=True)
        }

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __add__(self, other: Sequence[Any]) -> list[Any]:
        return [*self, *other]

    def __radd__(self, other: Sequence[Any]) -> list[Any]:
        return [*other, *self]

    def __copy__(self) -> PromptLogprobs:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> PromptLogprobs:
        return self

    def __repr__(self) -> str:
        return repr(list(self))

    def __reduce__(self) -> tuple[Any, ...]:
        columns = self._columns
        return _restore, (columns, _written_out(columns[0], self._texts), self._where)


class Column(Sequence[Any]):
    """Acts as a list of the numbers of an array, or of the texts of its token ids. A slice is
    another view."""

    def __init__(self, array: NDArray[Any], texts: Callable[[int], str] | None = None) -> None:
        self._array, self._texts = array, texts

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Column: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Column(self._array[index], self._texts)
        value = self._array[index].item()
        return value if self._texts is None else self._texts(value)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self._array), _CHUNK):
            values = self._array[start : start + _CHUNK].tolist()
            yield from values if self._texts is None else map(self._texts, values)

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __add__(self, other: Sequence[Any]) -> list[Any]:
        return [*self, *other]

    def __radd__(self, other: Sequence[Any]) -> list[Any]:
        return [*other, *self]

    def __copy__(self) -> Column:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Column:
        return self

    def __repr__(self) -> str:
        return repr(list(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_column, (self._array, _written_out(self._array, self._texts))


class _NoTexts(Sequence[None]):
    """Acts as a list of so many None."""

    def __init__(self, length: int) -> None:
        self._where = range(length)

    def __len__(self) -> int:
        return len(self._where)

    @overload
    def __getitem__(self, index: int) -> None: ...
    @overload
    def __getitem__(self, index: slice) -> _NoTexts: ...
    def __getitem__(self, index: int | slice) -> Any:
        where = self._where[index]  # raises IndexError
        return None if isinstance(where, int) else _NoTexts(len(where))

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __add__(self, other: Sequence[Any]) -> list[Any]:
        return [*self, *other]

    def __repr__(self) -> str:
        return repr(list(self))


def prompt_logprobs_of(
    columns: Columns | None,
    flat: bool,
    texts: TokenTexts | None,
) -> PromptLogprobs | FlatLogprobs:
    """The result of a request with prompt_logprobs.

    Args:
        columns: of ``_core.RequestOutput.prompt_logprobs``: token ids, log-probabilities, ranks,
            and where each position from the second on ends. None is a prompt of one token.
        flat: make a FlatLogprobs, in which the first position is empty.
        texts: fills in ``decoded_token``; None leaves it None.
    """
    token_ids, logprobs, ranks, ends = _without_repeats(*(columns or _no_columns()))
    text_of = None if texts is None else texts.of
    if not flat:
        return PromptLogprobs(token_ids, logprobs, ranks, ends, text_of)
    columns_of_flat: dict[str, Any] = {
        "start_indices": Column(_with_front(ends[:-1], 2)[: len(ends) + 1]),
        "end_indices": Column(_with_front(ends, 1)),
        "token_ids": Column(token_ids),
        "logprobs": Column(logprobs),
        "ranks": Column(ranks),
        "decoded_tokens": _NoTexts(len(token_ids)) if texts is None else Column(token_ids, text_of),
    }
    return FlatLogprobs(**columns_of_flat)


def _no_columns() -> Columns:
    import numpy as np

    return (
        np.empty(0, np.int32),
        np.empty(0, np.float32),
        np.empty(0, np.int32),
        np.empty(0, np.int64),
    )


def _with_front(array: NDArray[np.int64], zeros: int) -> NDArray[np.int64]:
    import numpy as np

    return np.concatenate([np.zeros(zeros, np.int64), array])


def _without_repeats(
    token_ids: NDArray[np.int32],
    logprobs: NDArray[np.float32],
    ranks: NDArray[np.int32],
    ends: NDArray[np.int64],
) -> Columns:
    """The columns without a second mention of a position's first token."""
    import numpy as np

    starts = _with_front(ends[:-1], 1)[: len(ends)]
    first = np.repeat(token_ids[starts], ends - starts)
    keep = token_ids != first
    keep[starts] = True
    if keep.all():
        return token_ids, logprobs, ranks, ends
    kept = np.cumsum(keep)[ends - 1]
    return token_ids[keep], logprobs[keep], ranks[keep], kept


def _equal(mine: Sequence[Any], other: object) -> Any:
    if not isinstance(other, (list, PromptLogprobs, Column, _NoTexts)):
        return NotImplemented
    if len(mine) != len(other):
        return False
    return all(a == b for a, b in zip(mine, other, strict=True))


def _written_out(
    token_ids: NDArray[np.int32], texts: Callable[[int], str] | None
) -> dict[int, str] | None:
    """The texts of all the ids that there are: the tokenizer does not travel."""
    if texts is None:
        return None
    import numpy as np

    return {token_id: texts(token_id) for token_id in np.unique(token_ids).tolist()}


def _restore(columns: tuple[Any, Any, Any, Any], texts: dict[int, str] | None, where: range) -> Any:
    view = PromptLogprobs(*columns, None if texts is None else texts.__getitem__)
    view._where = where
    return view


def _restore_column(array: NDArray[Any], texts: dict[int, str] | None) -> Column:
    return Column(array, None if texts is None else texts.__getitem__)
