"""Penalties, bias, allowed and bad tokens and log-probabilities on a running engine, against numpy
written from their definitions: every token is checked on the logits of what came before it."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_under_test import DEVICE
from engine_driver import make_engine, random_prompt
from numpy.typing import NDArray
from octavo import LLM, SamplingParams, _core

Logits = NDArray[np.float32]
PROMPT = random_prompt(23, 97, seed=5)


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("llama")


def run(engine: Any, prompt: list[int], params: Any) -> list[Any]:
    """The outputs of one request, in order."""
    engine.add_request(prompt, params)
    outputs = []
    while engine.has_unfinished_requests():
        outputs += engine.step()
    return outputs


def edited(logits: Logits, prompt: list[int], output: list[int], rules: dict[str, Any]) -> Logits:
    """The definition (vLLM's order): bias, allowed ids, penalties, bad words."""
    logits = logits.copy()
    for token, bias in rules.get("logit_bias", {}).items():
        logits[token] += np.float32(bias)
    if rules.get("allowed_token_ids"):
        mask = np.full_like(logits, -np.inf)
        mask[rules["allowed_token_ids"]] = 0
        logits += mask
    repetition = np.float32(rules.get("repetition_penalty", 1.0))
    for token in {*prompt, *output}:
        logits[token] = (
            logits[token] / repetition if logits[token] > 0 else logits[token] * repetition
        )
    for token, count in Counter(output).items():
        logits[token] -= np.float32(rules.get("frequency_penalty", 0.0)) * np.float32(count)
        logits[token] -= np.float32(rules.get("presence_penalty", 0.0))
    for word in rules.get("bad_words", []):
        begun = word[:-1]
        if not begun or output[-len(begun) :] == begun:
            logits[word[-1]] = -np.inf
    return logits


RULES: list[dict[str, Any]] = [
    {"presence_penalty": 2.0},
    {"presence_penalty": -2.0},
    {"frequency_penalty": 1.5},
    {"repetition_penalty": 1.7},
    {"repetition_penalty": 0.6},
    {"logit_bias": {3: 4.0, 50: -100.0, 7: 2.5}},
    {"allowed_token_ids": [90, 4, 17, 33, 8]},
    {"presence_penalty": 0.7, "frequency_penalty": 0.3, "repetition_penalty": 1.2,
     "logit_bias": {11: 3.0}, "allowed_token_ids": list(range(60))},
]  # fmt: skip


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "+".join(rules))
@pytest.mark.parametrize("device", [DEVICE, "ref"])
def test_greedy_follows_the_definition(model: Path, rules: dict[str, Any], device: str) -> None:
    engine = make_engine(model, device=device)
    params = _core.SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True, **rules)
    tokens = [output.new_token_ids[0] for output in run(engine, PROMPT, params)]
    logits = engine.compute_logits(PROMPT + tokens)
    for i, token in enumerate(tokens):
        row = edited(logits[len(PROMPT) + i - 1], PROMPT, tokens[:i], rules)
        assert token == int(row.argmax()), f"token {i}"
    plain = _core.SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
    assert tokens != [output.new_token_ids[0] for output in run(engine, PROMPT, plain)]


def test_bad_words_are_never_completed(model: Path) -> None:
    engine = make_engine(model)
    plain = _core.SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
    tokens = [output.new_token_ids[0] for output in run(engine, PROMPT, plain)]
    words = [tokens[4:7], [tokens[10]]]
    params = _core.SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True, bad_words=words)
    changed = [output.new_token_ids[0] for output in run(engine, PROMPT, params)]
    logits = engine.compute_logits(PROMPT + changed)
    for i, token in enumerate(changed):
        row = edited(logits[len(PROMPT) + i - 1], PROMPT, changed[:i], {"bad_words": words})
        assert token == int(row.argmax())
    assert tokens[10] not in changed
    assert all(changed[i : i + 3] != words[0] for i in range(22))


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    return wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())


def check_position(position: Any, token: int, values: NDArray[np.float64], top: int) -> None:
    ids, logprobs, ranks = position
    best = sorted(range(len(values)), key=lambda i: -values[i])[:top]
    assert ids == [token, *best]
    finite = np.isfinite(values[ids])
    np.testing.assert_allclose(np.array(logprobs)[finite], values[ids][finite], atol=2e-5)
    assert not np.isfinite(np.array(logprobs)[~finite]).any()
    assert ranks == [int((values >= values[i]).sum()) for i in ids]


@pytest.mark.parametrize("mode", ["raw_logprobs", "processed_logprobs", "raw_logits"])
def test_logprobs(model: Path, mode: str) -> None:
    engine = make_engine(model, logprobs_mode=mode)
    rules: dict[str, Any] = {"presence_penalty": 1.0, "allowed_token_ids": list(range(80))}
    params = _core.SamplingParams(
        temperature=0.7, seed=3, max_tokens=20, ignore_eos=True, logprobs=4, **rules
    )
    outputs = run(engine, PROMPT, params)
    tokens = [output.new_token_ids[0] for output in outputs]
    logits = engine.compute_logits(PROMPT + tokens)
    for i, output in enumerate(outputs):
        row = logits[len(PROMPT) + i - 1]
        if mode == "processed_logprobs":
            row = edited(row, PROMPT, tokens[:i], rules) / np.float32(0.7)
        values = row.astype(np.float64) if mode == "raw_logits" else log_softmax(row)
        assert len(output.logprobs) == 1
        check_position(output.logprobs[0], tokens[i], values, 4)


def test_asking_changes_no_bit_whatever_the_batch(model: Path) -> None:
    """Tokens and the bits of log-probabilities: alone, in a batch, in chunks, preempted, cached."""

    def requests(asking: bool) -> list[tuple[list[int], Any]]:
        return [
            (
                random_prompt(5 + 9 * i, 97, seed=i),
                _core.SamplingParams(
                    temperature=1.0, seed=i, max_tokens=25, ignore_eos=True,
                    repetition_penalty=1.1, logprobs=3 if asking else None,
                ),
            )
            for i in range(8)
        ]  # fmt: skip

    def together(asking: bool = True, **options: Any) -> tuple[dict[int, Any], dict[str, int]]:
        engine = make_engine(model, **options)
        results: dict[int, Any] = {}
        for _ in range(2):  # the second time over the prefix cache
            ids = [engine.add_request(*request) for request in requests(asking)]
            results = {i: [] for i in ids}
            while engine.has_unfinished_requests():
                for output in engine.step():
                    results[output.request_id].append((output.new_token_ids, output.logprobs))
            results = {i - ids[0]: results[i] for i in ids}
        return results, engine.stats()

    expected = {
        i: [(output.new_token_ids, output.logprobs) for output in run(make_engine(model), *request)]
        for i, request in enumerate(requests(True))
    }
    everything, stats = together()
    assert everything == expected
    assert stats["prefix_cache_hits"] > 0
    pressed, stats = together(num_kv_blocks=14, max_num_batched_tokens=16)
    assert pressed == expected
    assert stats["num_preemptions"] > 0
    silent, _ = together(asking=False)
    assert {i: [t for t, _ in rows] for i, rows in silent.items()} == {
        i: [t for t, _ in rows] for i, rows in expected.items()
    }


def test_llm_gives_logprobs(model: Path) -> None:
    llm = LLM(str(model), dtype="float32", skip_tokenizer_init=True)
    params = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True, logprobs=2)
    [output] = llm.generate({"prompt_token_ids": PROMPT}, params, use_tqdm=False)
    [completion] = output.outputs
    assert completion.logprobs is not None
    assert len(completion.logprobs) == 6
    total = 0.0
    for token, position in zip(completion.token_ids, completion.logprobs, strict=True):
        assert next(iter(position)) == token
        assert len(position) == 2  # greedy: the best is the sampled one
        assert position[token].rank == 1
        total += position[token].logprob
    assert completion.cumulative_logprob == pytest.approx(total)
    with pytest.raises(ValueError, match="greater than max allowed: 20"):
        llm.generate({"prompt_token_ids": PROMPT}, SamplingParams(logprobs=21), use_tqdm=False)
    llm.close()


class Owner:
    """Something that a processor refers to, and that refers to the processor's parameters."""

    params: Any = None
    search: Any = None
    calls = 0


def make_cycle() -> Owner:
    owner = Owner()

    def process(token_ids: Any, logits: Any) -> None:
        owner.calls += 1
        logits[7] = np.inf

    owner.params = _core.SamplingParams(
        temperature=0.0, max_tokens=3, ignore_eos=True, logits_processors=[process]
    )
    owner.search = _core.BeamSearchParams(tokens=owner.params)
    owner.search.tokens  # noqa: B018  # a view of what it holds
    return owner


def test_a_processor_that_refers_to_its_parameters_is_collected() -> None:
    owner = make_cycle()
    seen = weakref.ref(owner)
    owner.search = None
    gc.collect()
    assert seen() is not None
    del owner
    gc.collect()
    assert seen() is None


def test_what_the_engine_still_calls_is_not_collected(model: Path) -> None:
    """The engine alone knows the processor, whose parameters have gone."""
    engine = make_engine(model)
    owner = make_cycle()
    seen = weakref.ref(owner)
    engine.add_request([1, 2], owner.params)
    del owner
    gc.collect()
    held = seen()
    assert held is not None
    tokens = []
    while engine.has_unfinished_requests():
        gc.collect()
        tokens += [i for output in engine.step() for i in output.new_token_ids]
    assert tokens == [7, 7, 7]
    assert held.calls == 3
    del held
    gc.collect()
    assert seen() is None
