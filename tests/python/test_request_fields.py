"""logits_processors, repetition_detection, skip_reading_prefix_cache and the times of a request."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_driver import random_prompt
from octavo import LLM, CompletionOutput, RequestOutput, SamplingParams

VOCAB_SIZE = 320
PROMPT = {"prompt_token_ids": random_prompt(40, VOCAB_SIZE, seed=1)}


@pytest.fixture(scope="module")
def llm(tiny_model: Callable[..., Path]) -> Iterator[LLM]:
    with LLM(str(tiny_model("llama", tokenizer=True)), dtype="float32", max_model_len=128) as model:
        yield model


def one(llm: LLM, **fields: Any) -> RequestOutput:
    params = SamplingParams(**{"max_tokens": 8, "ignore_eos": True, **fields})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of requests that end by an error
        return llm.generate(PROMPT, params, use_tqdm=False)[0]


def sample(llm: LLM, **fields: Any) -> CompletionOutput:
    return one(llm, **fields).outputs[0]


def only(*ids: int) -> Callable[[Any, Any], None]:
    def process(token_ids: Any, logits: Any) -> None:
        kept = logits[list(ids)].copy()
        logits[:] = -np.inf
        logits[list(ids)] = kept

    return process


def test_a_processor_sees_the_ids_so_far_and_changes_the_logits(llm):
    seen = []

    def forced(token_ids, logits):
        assert (token_ids.dtype, logits.dtype) == (np.int32, np.float32)
        assert logits.shape == (VOCAB_SIZE,)
        assert not token_ids.flags.writeable
        seen.append(token_ids.tolist())
        only(10 + len(token_ids))(token_ids, logits)

    assert sample(llm, logits_processors=[forced]).token_ids == list(range(10, 18))
    assert seen == [list(range(10, 10 + i)) for i in range(8)]


def test_processors_run_in_their_order(llm):
    def put(token_ids, logits):
        logits[7] = 1e6

    def swap(token_ids, logits):
        return np.roll(logits, 1)

    assert set(sample(llm, temperature=0, logits_processors=[put, swap]).token_ids) == {8}
    assert set(sample(llm, temperature=0, logits_processors=[swap, put]).token_ids) == {7}


def test_a_processor_that_does_nothing_changes_nothing(llm):
    fields = {"seed": 3, "n": 2, "logprobs": 3, "top_k": 50}
    plain = one(llm, **fields)
    edited = one(llm, **fields, logits_processors=[lambda ids, logits: None])
    for a, b in zip(plain.outputs, edited.outputs, strict=True):
        assert (a.token_ids, a.logprobs) == (b.token_ids, b.logprobs)


@pytest.mark.parametrize(
    "result", ["raise", 3, [0.0] * VOCAB_SIZE, float("nan")], ids=lambda v: str(v)[:8]
)
def test_a_processor_that_fails_ends_its_request_alone(llm, result):
    def process(token_ids, logits):
        if len(token_ids) < 3:
            return None
        if result == "raise":
            raise KeyError("no such thing")
        if result != result:
            logits[:] = result
            return None
        return result

    expected = sample(llm, seed=1).token_ids
    params = [
        SamplingParams(max_tokens=8, ignore_eos=True, seed=1),
        SamplingParams(max_tokens=8, ignore_eos=True, seed=1, logits_processors=[process]),
    ]
    with pytest.warns(UserWarning, match="failed"):
        beside, failed = llm.generate([PROMPT] * 2, params, use_tqdm=False)
    assert beside.outputs[0].token_ids == expected
    (output,) = failed.outputs
    assert output.finish_reason == "error"
    assert output.token_ids == expected[:3]
    if result == "raise":
        assert "no such thing" in output.error


def test_a_processor_cannot_break_out_of_a_structure(llm):
    letter = llm.get_tokenizer().convert_tokens_to_ids("x")

    def break_out(token_ids, logits):
        logits[:] = -np.inf
        logits[letter] = 0

    output = sample(llm, logits_processors=[break_out], structured_outputs={"regex": "[0-9]{3}"})
    assert output.finish_reason == "error"
    assert "structured_outputs" in output.error
    assert output.text == ""


def test_repetition_is_detected(llm):
    pattern = [20, 21, 22]

    def circle(token_ids, logits):
        only(pattern[len(token_ids) % 3])(token_ids, logits)

    def run(**detection: int) -> CompletionOutput:
        return sample(
            llm, max_tokens=30, logits_processors=[circle], repetition_detection=detection or None
        )

    found = run(max_pattern_size=5, min_pattern_size=2, min_count=3)
    assert (found.finish_reason, found.stop_reason) == ("repetition", "repetition_detected")
    assert found.token_ids == pattern * 3
    for detection in (
        {},
        {"max_pattern_size": 2, "min_count": 2},
        {"max_pattern_size": 5, "min_pattern_size": 4, "min_count": 3},
        {"max_pattern_size": 5, "min_count": 11},
        {"max_pattern_size": 0, "min_count": 2},
    ):
        assert run(**detection).finish_reason == ("length"), detection


def test_the_prefix_cache_is_not_read_where_that_is_asked_for(llm):
    one(llm)
    assert one(llm).num_cached_tokens == 32
    assert one(llm, skip_reading_prefix_cache=True).num_cached_tokens == 0
    assert one(llm, skip_reading_prefix_cache=False).num_cached_tokens == 32


def test_times_of_a_request(llm):
    stats = one(llm).metrics
    assert 0 < stats.queued_ts <= stats.scheduled_ts <= stats.first_token_ts <= stats.last_token_ts
    parts = stats.queue_time + stats.prefill_time + stats.decode_time
    assert parts == pytest.approx(stats.e2e)
    assert stats.inference_time == pytest.approx(stats.prefill_time + stats.decode_time)
    assert stats.num_generation_tokens == 8
    assert stats.num_preemptions == 0
    assert stats.first_token_latency > 0
