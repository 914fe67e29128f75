"""Log-probabilities of prompts and of sampled tokens at every position: those of transformers in
float32, and the same bits under every way of computing them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_driver import make_engine, random_prompt, sampled
from octavo import _core
from test_logits_edits import log_softmax
from test_prompt_logprobs import positions_of

VOCAB = 97
TOP = 5
NEW_TOKENS = 8
LENGTHS = [1, 2, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 80, 100, 129, 150]
# Every second prompt is scored as well, and thereby computed whole; the others may read the prefix
# cache, which the first round has filled.
PROMPTS = [random_prompt(length, VOCAB, seed=i) for i, length in enumerate(LENGTHS * 2)]

Position = tuple[list[int], list[float], list[int]]


def run(model: Path, *, one_by_one: bool, rounds: int, **options: Any) -> list[list[Position]]:
    """For each prompt the log-probabilities at all positions that were asked for."""
    engine = make_engine(model, num_kv_blocks=1024, max_logprobs=TOP, **options)
    for _ in range(rounds):
        results: list[list[Position]] = [[] for _ in PROMPTS]
        tokens: list[list[int]] = [[] for _ in PROMPTS]
        index_of: dict[int, int] = {}
        for i, prompt in enumerate(PROMPTS):
            scored = TOP if i % 2 == 0 else None
            params = sampled(NEW_TOKENS, seed=i, logprobs=TOP, prompt_logprobs=scored)
            index_of[engine.add_request(prompt, params)] = i
            while engine.has_unfinished_requests() and (one_by_one or i == len(PROMPTS) - 1):
                for output in engine.step():
                    index = index_of[output.request_id]
                    results[index] += [*positions_of(output), *output.logprobs]
                    tokens[index] += output.new_token_ids
    for i, prompt in enumerate(PROMPTS):
        expected = len(prompt) - 1 + NEW_TOKENS if i % 2 == 0 else NEW_TOKENS
        assert len(results[i]) == expected
        given = [position[0][0] for position in results[i]]
        assert given == [*prompt, *tokens[i]][-expected:]
    return results


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def alone(model: Path) -> list[list[Position]]:
    return run(model, one_by_one=True, rounds=1, enable_prefix_caching=False)


def test_every_position_is_that_of_transformers(
    model: Path, alone: list[list[Position]], oracle_of: Callable[..., Any]
) -> None:
    oracle = oracle_of(model)
    compared = 0
    for prompt, positions in zip(PROMPTS, alone, strict=True):
        sequence = [*prompt, *(position[0][0] for position in positions[-NEW_TOKENS:])]
        rows = oracle.logits(sequence[:-1])[-len(positions) :]
        for (ids, logprobs, ranks), logits in zip(positions, rows, strict=True):
            row = log_softmax(logits)
            np.testing.assert_allclose(logprobs, row[ids], atol=1e-4, rtol=0)
            best = np.sort(row)[::-1][:TOP]
            np.testing.assert_allclose(logprobs[1:], best, atol=1e-4, rtol=0)
            assert ranks[1:] == list(range(1, TOP + 1))
            compared += 1
    assert compared > 1000


CHUNKS = (16, 64, 4096)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("cached", [False, True], ids=["no-cache", "cache"])
@pytest.mark.parametrize("batch", [1, 32])
def test_the_same_bits(
    model: Path, alone: list[list[Position]], chunk: int, cached: bool, batch: int
) -> None:
    again = functools.partial(run, model, one_by_one=batch == 1, max_num_batched_tokens=chunk)
    assert again(rounds=1 + cached, enable_prefix_caching=cached) == alone


def test_the_cache_was_read(model: Path) -> None:
    """What the test above takes for granted."""
    engine = make_engine(model)
    for expected in (0, 96):
        request = engine.add_request(PROMPTS[13], sampled(1, seed=0, logprobs=TOP))
        [output] = engine.step()
        assert output.request_id == request
        assert output.num_cached_tokens == expected
    assert isinstance(output, _core.RequestOutput)
