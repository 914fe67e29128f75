"""Prompt log-probabilities made from the engine's columns, against lists made entry by entry."""

import copy
import pickle
import tracemalloc

import fake_core  # noqa: F401
import numpy as np
import pytest
from octavo import FlatLogprobs, Logprob, RequestOutput
from octavo.logprobs import PromptLogprobs, prompt_logprobs_of


class Texts:
    """As TokenTexts."""

    def of(self, token_id):
        return f"t{token_id}"


def make(num_positions, width=4, vocabulary=12, seed=0):
    """The columns, and the list of dicts that they mean; entries may name their first id twice."""
    random = np.random.default_rng([seed, num_positions])
    ids, logprobs, ranks, ends, expected = [], [], [], [], [None]
    for _ in range(num_positions):
        row = random.integers(0, vocabulary, 1).tolist()
        row += random.choice(vocabulary, random.integers(0, width + 1), replace=False).tolist()
        values = {i: float(np.float32(-random.random())) for i in row}
        ids += row
        logprobs += [values[i] for i in row]
        ranks += [i + 1 for i in row]
        ends.append(len(ids))
        expected.append({i: Logprob(values[i], i + 1, f"t{i}") for i in row})
    columns = (
        np.array(ids, np.int32),
        np.array(logprobs, np.float32),
        np.array(ranks, np.int32),
        np.array(ends, np.int64),
    )
    return columns, expected


@pytest.mark.parametrize("num_positions", [0, 1, 2, 7, 100])
def test_it_acts_as_a_list(num_positions):
    columns, expected = make(num_positions)
    result = prompt_logprobs_of(columns, flat=False, texts=Texts())
    assert isinstance(result, PromptLogprobs)
    assert len(result) == num_positions + 1
    assert result[0] is None
    assert result == expected
    assert expected == result
    assert list(result) == expected
    assert [list(entry) for entry in result[1:]] == [list(entry) for entry in expected[1:]]
    assert [result[i] for i in range(-len(expected), len(expected))] == expected * 2
    assert repr(result) == repr(expected)
    assert result != expected[:-1]
    assert result != [*expected[:-1], {}]
    assert result + expected == expected + result == expected * 2
    assert list(reversed(result)) == expected[::-1]
    for index in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            result[index]


@pytest.mark.parametrize("flat", [False, True])
def test_slices(flat):
    columns, expected = make(20)
    result = prompt_logprobs_of(columns, flat=flat, texts=Texts())
    if flat:
        expected = [entry or {} for entry in expected]
    bounds = (None, 0, 1, 5, 20, 21, 30, -1, -5, -30)
    for start in bounds:
        for stop in bounds:
            for step in (None, 1, 2, -1, -3):
                where = slice(start, stop, step)
                part = result[where]
                assert type(part) is type(result)
                assert list(part) == expected[where]
                assert len(part) == len(expected[where])
    assert list(result[2:18][3:7][1]) == list(expected[6])


def test_a_prompt_of_one_token():
    assert prompt_logprobs_of(None, flat=False, texts=Texts()) == [None]
    assert list(prompt_logprobs_of(None, flat=True, texts=Texts())) == [{}]


def test_without_texts():
    columns, expected = make(5)
    for flat in (False, True):
        result = prompt_logprobs_of(columns, flat=flat, texts=None)
        entries = [entry for position in result if position for entry in position.values()]
        assert len(entries) == sum(len(position) for position in expected if position)
        assert all(entry.decoded_token is None for entry in entries)


def test_values_are_plain():
    columns, _ = make(3)
    for flat in (False, True):
        result = prompt_logprobs_of(columns, flat=flat, texts=Texts())
        for position in result:
            for token_id, entry in (position or {}).items():
                assert type(token_id) is int
                assert type(entry.logprob) is float
                assert type(entry.rank) is int


@pytest.mark.parametrize("num_positions", [0, 1, 30])
def test_flat_ones_hold_the_same(num_positions):
    columns, expected = make(num_positions)
    result = prompt_logprobs_of(columns, flat=True, texts=Texts())
    by_hand = FlatLogprobs()
    by_hand.extend(expected)
    assert isinstance(result, FlatLogprobs)
    assert result == by_hand
    assert by_hand == result
    assert result[0] == {}
    assert list(result)[1:] == expected[1:]
    for name in ("start_indices", "end_indices", "token_ids", "logprobs", "ranks"):
        column, plain = getattr(result, name), getattr(by_hand, name)
        assert column == plain
        assert list(column) == plain
        assert column[1:] == plain[1:]
        assert len(column) == len(plain)
        assert repr(column) == repr(plain)
        assert [column[i] for i in range(len(plain))] == plain
        assert all(type(a) is type(b) for a, b in zip(column, plain, strict=True))
    assert result.decoded_tokens == by_hand.decoded_tokens
    with pytest.raises(IndexError):
        result.logprobs[len(by_hand.logprobs)]


@pytest.mark.parametrize("texts", [Texts(), None])
def test_flat_ones_can_grow(texts):
    columns, _ = make(3)
    result = prompt_logprobs_of(columns, flat=True, texts=texts)
    before = list(result)
    more = {5: Logprob(-1.0, 2, "x"), 6: Logprob(-2.0, 3, "y")}
    result.append(more)
    assert list(result) == [*before, more]
    result.extend([more])
    assert list(result[-2:]) == [more, more]
    with pytest.raises(TypeError):
        result[0] = {}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("texts", [Texts(), None])
def test_copies_and_pickles(flat, texts):
    columns, _ = make(10)
    result = prompt_logprobs_of(columns, flat=flat, texts=texts)
    output = RequestOutput("0", None, [1] * 11, result, [], True)
    for other in (copy.copy(output), copy.deepcopy(output), pickle.loads(pickle.dumps(output))):
        assert other.prompt_logprobs == result
        assert list(other.prompt_logprobs) == list(result)
    part = pickle.loads(pickle.dumps(result[3:9:2]))
    assert list(part) == list(result[3:9:2])


def test_a_long_prompt_takes_little_memory():
    length, width = 4096, 21
    tracemalloc.start()
    random = np.random.default_rng(0)
    ids = random.integers(0, 50_000, length * width).astype(np.int32)
    ids[width :: width * 2] = ids[width + 3 :: width * 2]  # every other first id is named again
    columns = (
        ids,
        random.random(length * width, np.float32),
        ids,
        np.arange(width, length * width + 1, width, np.int64),
    )
    arrays = sum(column.nbytes for column in columns)
    for flat in (False, True):
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        result = prompt_logprobs_of(columns, flat=flat, texts=Texts())
        assert len(result) == length + 1
        assert sum(1 for entry in result if entry) == length
        view = result[100:] if not flat else None
        after, peak = tracemalloc.get_traced_memory()
        assert peak - before < 6 * arrays
        assert after - before < 2 * arrays
        del result, view
    tracemalloc.stop()
