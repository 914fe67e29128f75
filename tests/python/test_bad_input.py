"""Bad input is a clear exception that names what is wrong, and the engine goes on serving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from device_under_test import DEVICE
from engine_driver import Collector, generate, greedy, make_engine, random_prompt, sampled
from octavo import LLM, SamplingParams, _core
from octavo.errors import (
    NotSupportedError,
    OutOfMemoryError,
    ValidationError,
)

VOCAB = 320
MAX_LEN = 64


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("llama", tokenizer=True)


@pytest.fixture(scope="module")
def engine(model: Path) -> _core.Engine:
    return make_engine(model, max_model_len=MAX_LEN, num_kv_blocks=3)


@pytest.fixture(scope="module")
def llm(model: Path) -> Any:
    with LLM(str(model), device=DEVICE, dtype="float32", max_model_len=MAX_LEN) as llm:
        yield llm


# Requests. Each: the prompt, the fields of SamplingParams, what the message must name.

BAD_PROMPTS = {
    "empty": ([], {}, "empty"),
    "out of vocabulary": ([1, VOCAB, 2], {}, f"{VOCAB} is out of vocabulary"),
    "negative": ([1, -1], {}, "-1 is out of vocabulary"),
    "as long as the context": ([1] * MAX_LEN, {}, f"length {MAX_LEN}"),
    "longer than the context": ([1] * (MAX_LEN + 1), {}, f"contains {MAX_LEN + 1}"),
    "never fits with its output": ([1] * 40, {"max_tokens": 20}, "KV cache"),
    "never fits": ([1] * 50, {"max_tokens": 1}, "KV cache"),
}
NAN, INFINITY = float("nan"), float("inf")
BAD_PARAMS = [
    ("n", 0),
    ("n", -1),
    ("n", 16385),
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", NAN),
    ("temperature", INFINITY),
    ("top_p", 0.0),
    ("top_p", -0.5),
    ("top_p", 1.01),
    ("top_p", NAN),
    ("top_k", -2),
    ("min_p", -0.01),
    ("min_p", 1.01),
    ("min_p", NAN),
    ("max_tokens", -1),
    ("max_tokens", -5),
    ("min_tokens", -1),
    ("min_tokens", 17),  # above max_tokens
    ("stop_token_ids", [VOCAB]),
    ("stop_token_ids", [-1]),
]


def fields_with(name: str, value: Any) -> dict[str, Any]:
    return {"max_tokens": 16, name: value}


@pytest.mark.parametrize("case", BAD_PROMPTS)
def test_a_bad_prompt_is_refused(engine: _core.Engine, case: str) -> None:
    prompt, fields, expected = BAD_PROMPTS[case]
    before = engine.stats()
    with pytest.raises(ValidationError) as caught:
        engine.add_request(prompt, _core.SamplingParams(**fields))
    assert expected in str(caught.value)
    assert engine.stats() == before


@pytest.mark.parametrize(("name", "value"), BAD_PARAMS)
def test_a_bad_parameter_is_refused_by_the_engine(
    engine: _core.Engine, name: str, value: Any
) -> None:
    before = engine.stats()
    with pytest.raises(ValidationError) as caught:
        engine.add_request([1, 2, 3], _core.SamplingParams(**fields_with(name, value)))
    assert name in str(caught.value)
    assert engine.stats() == before


@pytest.mark.parametrize(("name", "value"), BAD_PARAMS)
def test_a_bad_parameter_is_refused_by_python(llm: LLM, name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        llm.generate("Hi", SamplingParams(**fields_with(name, value)), use_tqdm=False)
    assert name in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 1.5),
        ("n", "2"),
        ("temperature", "hot"),
        ("top_k", 1.5),
        ("max_tokens", 2.5),
        ("seed", "x"),
        ("seed", 2**64),
        ("stop", [""]),
        ("stop", [3]),
        ("stop_token_ids", ["a"]),
        ("ignore_eos", 1),
    ],
)
def test_a_parameter_of_the_wrong_type_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=name):
        SamplingParams(**{name: value})


def test_greedy_takes_one_sample() -> None:
    with pytest.raises(ValidationError, match="n must be 1 when using greedy sampling, got 2"):
        SamplingParams(temperature=0, n=2)


@pytest.mark.parametrize("value", [1, 2**31, 2**40, 2**63 - 1])
def test_large_counts_do_not_overflow(llm: LLM, value: int) -> None:
    params = SamplingParams(
        temperature=1, max_tokens=value, top_k=value, seed=value, stop_token_ids=[1]
    )
    (output,) = llm.generate({"prompt_token_ids": [1, 2]}, params, use_tqdm=False)
    assert 1 <= len(output.outputs[0].token_ids) <= MAX_LEN - 2


@pytest.mark.parametrize("value", [2**31, 2**63, 2**70, -(2**31) - 1, 1.5, "1", None])
def test_a_token_id_of_another_kind_is_refused(llm: LLM, value: Any) -> None:
    with pytest.raises((ValidationError, TypeError, OverflowError)):
        llm.generate({"prompt_token_ids": [1, value]}, use_tqdm=False)
    assert_serves(llm)


@pytest.mark.parametrize(
    "prompt", [None, 5, b"bytes", {}, {"prompt": 5}, [None], {"prompt_token_ids": "x"}]
)
def test_what_is_not_a_prompt_is_refused(llm: LLM, prompt: Any) -> None:
    with pytest.raises((TypeError, ValidationError)):
        llm.generate(prompt, use_tqdm=False)
    assert_serves(llm)


def test_wrong_params_type(llm: LLM) -> None:
    with pytest.raises(TypeError, match="SamplingParams"):
        llm.generate("Hi", {"temperature": 0}, use_tqdm=False)
    with pytest.raises(ValidationError, match=r"lengths of prompts \(1\) and params \(2\)"):
        llm.generate(["Hi"], [SamplingParams(), SamplingParams()], use_tqdm=False)


def assert_serves(llm: LLM) -> None:
    (output,) = llm.generate(
        {"prompt_token_ids": [5, 6]}, SamplingParams(temperature=0, max_tokens=3), use_tqdm=False
    )
    assert len(output.outputs[0].token_ids) in (1, 2, 3)


@pytest.mark.parametrize("case", [case for case in BAD_PROMPTS if "fits" not in case])
def test_one_bad_prompt_of_a_list_leaves_the_llm_usable(llm: LLM, case: str) -> None:
    prompt, _, _ = BAD_PROMPTS[case]
    good = {"prompt_token_ids": [1, 2, 3]}
    with pytest.raises(ValidationError):
        llm.generate([good, {"prompt_token_ids": prompt}, good], use_tqdm=False)
    assert_serves(llm)
    assert not llm.generate([], use_tqdm=False)


def test_refusals_leave_the_neighbours_tokens_unchanged(model: Path) -> None:
    prompts = [random_prompt(10 + i, VOCAB, seed=i) for i in range(4)]
    params = [greedy(20), sampled(20, seed=1), greedy(20), sampled(20, seed=2)]
    expected = generate(make_engine(model, max_model_len=MAX_LEN), prompts, params)

    engine = make_engine(model, max_model_len=MAX_LEN, num_kv_blocks=3)
    collector = Collector(engine)
    ids = [engine.add_request(p, q) for p, q in zip(prompts, params, strict=True)]
    bad = [(prompt, fields) for prompt, fields, _ in BAD_PROMPTS.values()]
    bad += [([1, 2], fields_with(name, value)) for name, value in BAD_PARAMS]
    while engine.has_unfinished_requests():
        if bad:
            prompt, fields = bad.pop()
            with pytest.raises(ValidationError):
                engine.add_request(prompt, _core.SamplingParams(**fields))
        with pytest.raises(ValidationError):
            engine.fork(2**62, 0, greedy(1))
        assert not engine.abort(2**62)
        assert not engine.abort_sample(ids[0], 5)
        collector.step()
    assert not bad
    assert [collector.tokens[(request, 0)] for request in ids] == expected
    assert not collector.errors
    assert engine.stats()["num_blocks_used"] == 0


def test_compute_logits_checks_its_ids(engine: _core.Engine) -> None:
    for ids in ([], [VOCAB], [-1], [1] * (MAX_LEN + 1)):
        with pytest.raises(ValidationError):
            engine.compute_logits(ids)
    with pytest.raises(OutOfMemoryError, match="KV blocks"):
        engine.compute_logits([1] * (3 * 16 + 1))
    assert engine.stats()["num_blocks_used"] == 0
    assert engine.compute_logits([1, 2]).shape == (2, VOCAB)


# Options.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dtype", "float8"),
        ("dtype", ""),
        ("device", "tpu"),
        ("device", ""),
        ("quantization", "int3"),
        ("quantization", "gguf"),  # of a model whose weights are floating
        ("kv_cache_dtype", "int3"),
        ("load_format", "pickle"),
        ("max_model_len", -1),
        ("max_model_len", 10**9),
        ("max_num_seqs", 0),
        ("max_num_seqs", -1),
        ("max_num_batched_tokens", -1),
        ("num_kv_blocks", -1),
        ("kv_cache_memory_bytes", -1),
        ("num_threads", -1),
    ],
)
def test_a_bad_option_of_the_engine(model: Path, name: str, value: Any) -> None:
    with pytest.raises((ValidationError, NotSupportedError), match=name):
        make_engine(model, **{name: value})


def test_a_cache_that_does_not_fit_in_memory(model: Path) -> None:
    with pytest.raises(OutOfMemoryError, match=r"kv|KV|block"):
        make_engine(model, num_kv_blocks=2**30)


@pytest.mark.parametrize(
    ("name", "value"),
    [("dtype", "float8"), ("device", "tpu"), ("max_num_seqs", 0), ("max_num_batched_tokens", -3)],
)
def test_a_bad_option_of_the_llm(model: Path, name: str, value: Any) -> None:
    with pytest.raises((ValidationError, NotSupportedError, ValueError), match=name):
        LLM(str(model), **{name: value})


def test_an_unknown_option_of_the_llm(model: Path) -> None:
    with pytest.raises(TypeError, match="warp_speed"):
        LLM(str(model), warp_speed=9)
