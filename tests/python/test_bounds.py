"""Every parameter at its bounds and far beyond: each value is taken or refused by the parameter's
name, and what is generated beside it stays the same to the bit."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bounds_table
import numpy as np
import pytest
from bounds_table import CONSTRUCTION, MAX_LOGPROBS, SUBMISSION, VOCAB_SIZE
from device_under_test import DEVICE
from engine_driver import random_prompt
from octavo import LLM, NotSupportedError, RequestOutput, SamplingParams, ValidationError, _core

MAX_MODEL_LEN = 96
NUM_NEIGHBOURS = 16
GROUP = 24  # cases that run beside the neighbours at once
REFUSALS = (ValidationError, NotSupportedError, TypeError)

Bits = tuple[Any, ...]


@pytest.fixture(scope="module")
def llm(tiny_model: Callable[..., Path]) -> Iterator[LLM]:
    with LLM(
        str(tiny_model("llama", tokenizer=True)),
        device=DEVICE,
        dtype="float32",
        max_model_len=MAX_MODEL_LEN,
        max_logprobs=MAX_LOGPROBS,
        num_gpu_blocks_override=512,
        generation_config="vllm",
    ) as model:
        assert model.model_info.vocab_size == VOCAB_SIZE
        yield model


def neighbour_prompts() -> list[dict[str, Any]]:
    return [
        {"prompt_token_ids": random_prompt(3 + 4 * i, VOCAB_SIZE, seed=i)}
        for i in range(NUM_NEIGHBOURS)
    ]


def neighbour_params() -> list[SamplingParams]:
    kinds: list[dict[str, Any]] = [
        {"temperature": 0},
        {"seed": 1, "top_k": 30, "logprobs": 3},
        {"seed": 2, "top_p": 0.9, "presence_penalty": 0.5, "repetition_penalty": 1.2},
        {"seed": 3, "min_p": 0.02, "stop": ["zq"], "bad_words": ["a"], "logit_bias": {5: 2.0}},
    ]
    return [
        SamplingParams(max_tokens=10 + i, ignore_eos=True, **{"logprobs": 1, **kinds[i % 4]})
        for i in range(NUM_NEIGHBOURS)
    ]


def bits(output: RequestOutput) -> Bits:
    """All that a request gave, log-probabilities to the bit."""
    (sample,) = output.outputs
    logprobs = [
        [(i, struct.pack("<d", entry.logprob), entry.rank) for i, entry in position.items()]
        for position in sample.logprobs
    ]
    return sample.token_ids, sample.text, sample.finish_reason, sample.stop_reason, logprobs


@pytest.fixture(scope="module")
def undisturbed(llm: LLM) -> list[Bits]:
    outputs = llm.generate(neighbour_prompts(), neighbour_params(), use_tqdm=False)
    return [bits(output) for output in outputs]


def construct(name: str, value: Any) -> SamplingParams | None:
    """The parameters, None where they are refused, by the field's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return SamplingParams(**{"max_tokens": 8, name: value})
        except REFUSALS as error:
            refusal = error
    assert name in str(refusal)
    assert getattr(refusal, "parameter", name).startswith(name)
    return None


def shorter(params: SamplingParams) -> SamplingParams:
    """With fewer tokens, where there are thousands of samples."""
    return dataclasses.replace(params, max_tokens=1) if params.n > 100 else params


@pytest.mark.parametrize("name", bounds_table.TABLE)
def test_what_is_taken(name):
    for value, outcome in bounds_table.cases(name):
        taken = construct(name, value) is not None
        assert taken == (outcome != CONSTRUCTION), f"{name}={value!r}"


def test_every_field_is_in_the_table():
    fields = {field.name for field in dataclasses.fields(SamplingParams)}
    assert fields == set(bounds_table.TABLE)


def all_cases() -> list[tuple[str, Any, str]]:
    """Of each field, what is not refused at construction."""
    return [
        (name, value, outcome)
        for name in bounds_table.TABLE
        for value, outcome in bounds_table.cases(name)
        if outcome != CONSTRUCTION
    ]


@pytest.mark.filterwarnings("ignore")
def test_what_is_taken_runs_and_disturbs_nobody(llm, undisturbed):
    everything = all_cases()
    prompt = {"prompt_token_ids": random_prompt(20, VOCAB_SIZE, seed=99)}
    for start in range(0, len(everything), GROUP):
        group = everything[start : start + GROUP]
        params = [shorter(construct(name, value)) for name, value, _ in group]
        outputs = llm.generate(
            [*neighbour_prompts(), *[prompt] * len(group)],
            [*neighbour_params(), *params],
            use_tqdm=False,
            on_error="return",
        )
        assert [bits(output) for output in outputs[:NUM_NEIGHBOURS]] == undisturbed
        for (name, value, outcome), output in zip(group, outputs[NUM_NEIGHBOURS:], strict=True):
            check_outcome(name, value, outcome, output)


def check_outcome(name: str, value: Any, outcome: str, output: RequestOutput) -> None:
    what = f"{name}={value!r}"
    reasons = {sample.finish_reason for sample in output.outputs}
    errors = [sample.error for sample in output.outputs if sample.error]
    if outcome == SUBMISSION:
        assert reasons == {"error"}, what
        assert name in errors[0], what
    else:
        assert not errors, f"{what}: {errors}"
        assert reasons <= {"stop", "length", "repetition"}, what


@pytest.mark.parametrize("length", [0, 1, *range(MAX_MODEL_LEN - 1, MAX_MODEL_LEN + 2), 10**5])
@pytest.mark.parametrize("max_tokens", [0, 1, None])
def test_lengths_of_prompts(llm, undisturbed, length, max_tokens):
    outputs = llm.generate(
        [*neighbour_prompts(), {"prompt_token_ids": [7] * length}],
        [*neighbour_params(), SamplingParams(max_tokens=max_tokens, temperature=0)],
        use_tqdm=False,
        on_error="return",
    )
    assert [bits(output) for output in outputs[:NUM_NEIGHBOURS]] == undisturbed
    (sample,) = outputs[-1].outputs
    fits = 1 <= length <= MAX_MODEL_LEN - (max_tokens != 0)
    assert (sample.finish_reason == "error") == (not fits)
    if fits:
        assert len(sample.token_ids) <= MAX_MODEL_LEN - length


@pytest.mark.parametrize(
    "token", [-1, VOCAB_SIZE, 2**31, 2**32, 2**63, -(2**63), 10**400, 1.0, True]
)
def test_ids_of_prompts(llm, undisturbed, token):
    outputs = llm.generate(
        [*neighbour_prompts(), {"prompt_token_ids": [1, token]}],
        [*neighbour_params(), SamplingParams(temperature=0)],
        use_tqdm=False,
        on_error="return",
    )
    assert [bits(output) for output in outputs[:NUM_NEIGHBOURS]] == undisturbed
    assert outputs[-1].outputs[0].finish_reason == "error"


# The same straight into the engine, past the checks of the Python package.


def core_names() -> list[str]:
    return [name for name in dir(_core.SamplingParams()) if not name.startswith("_")]


def core_params(name: str, value: Any) -> _core.SamplingParams | None:
    fields = {"max_tokens": 1 if name == "n" else 8, "ignore_eos": True, name: value}
    try:
        return _core.SamplingParams(**fields)
    except (TypeError, ValueError, OverflowError):
        return None  # of a type or size that the engine's field does not hold


def core_values(name: str) -> list[Any]:
    values = [*bounds_table.ANYTHING, [[]], [[0]], [[-1]], [[VOCAB_SIZE]], [[2**31]], (1, 2, 3)]
    values += [(0, 0, 0), (4, 1, 2), (4, 5, 2), (4, 1, 1), (-1, -1, -1), (2**31 - 1, 0, 2**31 - 1)]
    values += [_core.StructuredOutputs("regex", text) for text in ("", "(", "a+", "\0", "\ufffd")]
    values += [_core.StructuredOutputs("choice"), _core.StructuredOutputs("json_schema", "{")]
    if name in bounds_table.TABLE:
        values += bounds_table.TABLE[name].bounds
    return values


class Rows:
    """Collects what the engine gives by request, log-probabilities to the bit."""

    def __init__(self, engine: _core.Engine) -> None:
        self.engine = engine
        self.rows: dict[int, list[Any]] = {}
        self.errors: dict[int, str] = {}

    def run(self) -> Rows:
        while self.engine.has_unfinished_requests():
            for output in self.engine.step():
                columns = [
                    (ids, np.float32(values).tobytes(), ranks)
                    for ids, values, ranks in output.logprobs
                ]
                row = (output.sample_index, output.new_token_ids, columns, output.finish_reason)
                self.rows.setdefault(output.request_id, []).append(row)
                if output.error:
                    self.errors[output.request_id] = output.error
        return self


def core_neighbours(engine: _core.Engine) -> list[int]:
    return [
        engine.add_request(
            prompt["prompt_token_ids"],
            _core.SamplingParams(max_tokens=6, seed=i, logprobs=2, ignore_eos=True, top_k=40),
        )
        for i, prompt in enumerate(neighbour_prompts())
    ]


@pytest.mark.parametrize("name", core_names())
def test_the_engine_refuses_by_itself(tiny_model, name):
    engine = make_core_engine(str(tiny_model("llama")))
    first = core_neighbours(engine)
    alone = Rows(engine).run().rows
    beside = core_neighbours(engine)
    accepted = []
    for value in core_values(name):
        params = core_params(name, value)
        if params is None:
            continue
        with contextlib.suppress(*REFUSALS):
            accepted.append(engine.add_request([1, 2, 3], params))
    collected = Rows(engine).run()
    assert [collected.rows[i] for i in beside] == [alone[i] for i in first]
    assert set(collected.rows) == {*beside, *accepted}
    stats = engine.stats()
    assert stats["num_running"] == 0


_engines: dict[str, _core.Engine] = {}


def make_core_engine(model: str) -> _core.Engine:
    """One for all fields: what one of them does to the engine, the next ones see."""
    if model not in _engines:
        _engines[model] = _core.Engine(
            model=model, device=DEVICE, dtype="float32", num_kv_blocks=512, max_model_len=64,
            enable_prefix_caching=False,
        )  # fmt: skip
        _engines[model].set_vocabulary([bytes([i % 256]) if i else b"" for i in range(VOCAB_SIZE)])
    return _engines[model]
