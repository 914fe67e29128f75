"""Log-probabilities of prompts: right at every position, and the same bits however they come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_driver import make_engine, random_prompt
from octavo import LLM, SamplingParams, ValidationError, _core
from test_logits_edits import check_position, log_softmax

PROMPTS = [random_prompt(length, 97, seed=length) for length in (1, 2, 16, 17, 33, 70)]


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("llama")


def scoring(top: int = 3, max_tokens: int = 2) -> Any:
    return _core.SamplingParams(
        temperature=0.0, max_tokens=max_tokens, ignore_eos=True, prompt_logprobs=top
    )


def positions_of(output: Any) -> list[tuple[list[int], list[float], list[int]]]:
    """The columns of an output, cut into positions; they can be taken once."""
    columns = output.prompt_logprobs
    assert output.prompt_logprobs is None
    if columns is None:
        return []
    ids, logprobs, ranks, ends = columns
    assert (ids.dtype, logprobs.dtype) == (np.int32, np.float32)
    assert (ranks.dtype, ends.dtype) == (np.int32, np.int64)
    assert ends[-1] == len(ids) == len(logprobs) == len(ranks)
    parts = (np.split(column, ends[:-1]) for column in (ids, logprobs, ranks))
    return [tuple(part.tolist() for part in position) for position in zip(*parts, strict=True)]


def score_all(engine: Any, *, one_by_one: bool = False) -> list[Any]:
    """The prompt logprobs of all prompts."""
    results: dict[int, Any] = {}
    for prompt in PROMPTS:
        results[engine.add_request(prompt, scoring())] = None
        while engine.has_unfinished_requests() and (one_by_one or prompt is PROMPTS[-1]):
            for output in engine.step():
                if results[output.request_id] is None:
                    results[output.request_id] = positions_of(output)
                else:
                    assert output.prompt_logprobs is None
    return list(results.values())


def test_every_position_against_the_logits(model: Path) -> None:
    engine = make_engine(model)
    for prompt, scores in zip(PROMPTS, score_all(engine, one_by_one=True), strict=True):
        logits = engine.compute_logits(prompt)
        assert len(scores) == len(prompt) - 1
        for i, position in enumerate(scores):
            check_position(position, prompt[i + 1], log_softmax(logits[i]), 3)


def test_against_transformers(model: Path, oracle_of: Callable[..., Any]) -> None:
    engine = make_engine(model)
    oracle = oracle_of(model)
    for prompt, scores in zip(PROMPTS, score_all(engine), strict=True):
        logits = oracle.logits(prompt)
        for i, (ids, logprobs, _) in enumerate(scores):
            np.testing.assert_allclose(logprobs, log_softmax(logits[i])[ids], atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"max_num_batched_tokens": 16},
        {"max_num_batched_tokens": 64},
        {"max_num_batched_tokens": 7, "enable_prefix_caching": False},
        {"num_kv_blocks": 6, "max_num_batched_tokens": 16},
        {"max_num_seqs": 2},
    ],
    ids=str,
)
def test_the_same_bits_in_every_way(model: Path, options: dict[str, Any]) -> None:
    expected = score_all(make_engine(model), one_by_one=True)
    engine = make_engine(model, **options)
    assert score_all(engine) == expected
    assert score_all(engine) == expected  # the prefix cache has them all, and is not read
    assert engine.stats()["num_blocks_used"] == 0


def test_prompts_that_are_scored_feed_the_prefix_cache(model: Path) -> None:
    engine = make_engine(model)
    score_all(engine)
    assert engine.stats()["prefix_cache_hits"] == 0
    engine.add_request(PROMPTS[-1], _core.SamplingParams(temperature=0.0, max_tokens=1))
    engine.step()
    assert engine.stats()["prefix_cache_hits"] == 64


def test_asking_changes_no_token(model: Path) -> None:
    def tokens(params: Any) -> list[list[int]]:
        engine = make_engine(model)
        ids = [engine.add_request(prompt, params) for prompt in PROMPTS]
        results: dict[int, list[int]] = {i: [] for i in ids}
        while engine.has_unfinished_requests():
            for output in engine.step():
                results[output.request_id] += output.new_token_ids
        return list(results.values())

    fields = {"temperature": 1.0, "seed": 5, "max_tokens": 12, "ignore_eos": True}
    assert tokens(_core.SamplingParams(**fields)) == tokens(
        _core.SamplingParams(**fields, prompt_logprobs=5)
    )


def test_scoring_without_generating(model: Path) -> None:
    """max_tokens=0, up to a prompt of the whole context."""
    llm = LLM(str(model), dtype="float32", skip_tokenizer_init=True, max_model_len=48)
    prompt = random_prompt(48, 97, seed=1)
    params = SamplingParams(max_tokens=0, prompt_logprobs=1)
    [output] = llm.generate({"prompt_token_ids": prompt}, params, use_tqdm=False)
    assert output.outputs[0].token_ids == []
    assert output.outputs[0].finish_reason == "length"
    assert output.prompt_logprobs[0] is None
    assert len(output.prompt_logprobs) == 48
    for token, position in zip(prompt[1:], output.prompt_logprobs[1:], strict=True):
        assert next(iter(position)) == token
        assert len(position) == (1 if position[token].rank == 1 else 2)
    with pytest.raises(ValidationError, match="maximum model length of 48"):
        llm.generate({"prompt_token_ids": prompt}, SamplingParams(max_tokens=1), use_tqdm=False)
    [flat] = llm.generate(
        {"prompt_token_ids": prompt},
        SamplingParams(max_tokens=0, prompt_logprobs=1, flat_logprobs=True),
        use_tqdm=False,
    )
    assert list(flat.prompt_logprobs)[1:] == output.prompt_logprobs[1:]
    llm.close()


def test_several_samples_and_bounds(model: Path) -> None:
    engine = make_engine(model)
    params = _core.SamplingParams(n=3, seed=1, max_tokens=3, ignore_eos=True, prompt_logprobs=0)
    engine.add_request(PROMPTS[3], params)
    given = []
    while engine.has_unfinished_requests():
        given += [(o.sample_index, len(positions_of(o))) for o in engine.step()]
    assert given[0] == (0, 16)
    assert all(count == 0 for _, count in given[1:])
    with pytest.raises(ValidationError, match="Requested prompt logprobs of 21"):
        engine.add_request([1, 2], scoring(top=21))
    with pytest.raises(ValidationError, match="prompt_logprobs must be non-negative or -1"):
        engine.add_request([1, 2], scoring(top=-2))
    parent = engine.add_request(PROMPTS[1], scoring())
    with pytest.raises(ValidationError, match="prompt_logprobs"):
        engine.fork(parent, 0, scoring())
