"""Batching changes nothing: the tokens of a request do not depend on what runs beside it, on the
token budget, on preemption, on the prefix cache, or on the order and time of arrival."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_under_test import DEVICE
from engine_driver import Collector, Tokens, generate, greedy, make_engine, random_prompt, sampled
from octavo import LLM, SamplingParams

NUM_PROMPTS = 64
BLOCK = 16


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("llama")


@functools.cache
def mixed_prompts() -> list[Tokens]:
    """Prompts of 1 to 90 tokens, a third of which share a beginning of 40 tokens."""
    shared = random_prompt(40, 320, seed=70)
    prompts = []
    for i in range(NUM_PROMPTS):
        length = int(np.random.default_rng([7, i]).integers(1, 91))
        tail = random_prompt(length, 320, seed=i)
        prompts.append(shared + tail[: length // 2] if i % 3 == 0 else tail)
    return prompts


def mixed_params() -> list[Any]:
    """Half greedy, half sampled with a seed and every filter; 1 to 24 tokens."""
    params = []
    for i in range(NUM_PROMPTS):
        length = 1 + (i * 7) % 24
        if i % 2 == 0:
            params.append(greedy(length))
        else:
            filters = [{}, {"top_k": 20}, {"top_p": 0.8}, {"min_p": 0.05, "temperature": 1.5}]
            params.append(sampled(length, seed=1000 + i, **filters[i // 2 % 4]))
    return params


@pytest.fixture(scope="module")
def alone(model: Path) -> list[Tokens]:
    """The tokens of every prompt in an engine of its own company, without a prefix cache."""
    engine = make_engine(model, enable_prefix_caching=False)
    tokens = generate(engine, mixed_prompts(), mixed_params(), one_by_one=True)
    assert engine.stats()["prefix_cache_hits"] == 0
    assert [len(t) for t in tokens] == [p.max_tokens for p in mixed_params()]
    return tokens


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"enable_prefix_caching": False},
        {"max_num_batched_tokens": 32},
        {"max_num_batched_tokens": 1},
        {"max_num_seqs": 3},
        {"max_num_seqs": 1},
        {"num_threads": 1},
        {"enable_chunked_prefill": False, "max_num_batched_tokens": 128, "max_model_len": 128},
        {"max_num_batched_tokens": 32, "max_num_seqs": 5, "num_kv_blocks": 20},
    ],
    ids=str,
)
def test_together_equals_alone(model: Path, alone: list[Tokens], options: dict[str, Any]) -> None:
    engine = make_engine(model, **options)
    assert generate(engine, mixed_prompts(), mixed_params()) == alone
    stats = engine.stats()
    assert stats["num_running"] == stats["num_waiting"] == stats["num_blocks_used"] == 0
    assert stats["num_requests_finished"] == NUM_PROMPTS
    # Also where all prompts start in one step.
    assert (stats["prefix_cache_hits"] > 0) == options.get("enable_prefix_caching", True)


@pytest.mark.parametrize("prefix_caching", [True, False])
def test_preemption_changes_no_token(
    model: Path, alone: list[Tokens], prefix_caching: bool
) -> None:
    # The largest request needs 8 blocks; 10 make any two large ones fight.
    engine = make_engine(model, num_kv_blocks=10, enable_prefix_caching=prefix_caching)
    assert generate(engine, mixed_prompts(), mixed_params()) == alone
    stats = engine.stats()
    assert stats["num_preemptions"] > 0
    assert stats["num_recomputed_tokens"] > 0
    assert stats["num_blocks_used"] == 0


def test_reversed_order(model: Path, alone: list[Tokens]) -> None:
    engine = make_engine(model, max_num_seqs=7)
    tokens = generate(engine, mixed_prompts()[::-1], mixed_params()[::-1])
    assert tokens[::-1] == alone


def test_one_by_one_with_the_prefix_cache(model: Path, alone: list[Tokens]) -> None:
    engine = make_engine(model)
    for _ in range(2):  # the second time every prompt hits itself
        assert generate(engine, mixed_prompts(), mixed_params(), one_by_one=True) == alone
    assert engine.stats()["prefix_cache_hits"] > 0


def test_late_joiners(model: Path, alone: list[Tokens]) -> None:
    """Requests arrive while others run, a few in each step."""
    engine = make_engine(model, max_num_batched_tokens=48, num_kv_blocks=40)
    collector = Collector(engine)
    waiting = list(zip(mixed_prompts(), mixed_params(), strict=True))
    ids = []
    step = 0
    while waiting or engine.has_unfinished_requests():
        for _ in range(min(step % 3, len(waiting))):
            prompt, params = waiting.pop(0)
            ids.append(engine.add_request(prompt, params))
        collector.step()
        step += 1
    assert [collector.tokens[(request, 0)] for request in ids] == alone


def test_neighbours_that_are_aborted_change_nothing(model: Path, alone: list[Tokens]) -> None:
    engine = make_engine(model, num_kv_blocks=48, max_num_batched_tokens=64)
    collector = Collector(engine)
    ids = []
    victims = []
    for i, (prompt, params) in enumerate(zip(mixed_prompts(), mixed_params(), strict=True)):
        ids.append(engine.add_request(prompt, params))
        victims.append(engine.add_request(random_prompt(30 + i, 320, seed=9), greedy(50)))
    while engine.has_unfinished_requests():
        collector.step()
        if victims:
            assert engine.abort(victims.pop(0))
    assert [collector.tokens[(request, 0)] for request in ids] == alone


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_too(model: Path, dtype: str) -> None:
    prompts, params = mixed_prompts()[:24], mixed_params()[:24]
    lone = make_engine(model, dtype=dtype, enable_prefix_caching=False)
    expected = generate(lone, prompts, params, one_by_one=True)
    crowded = make_engine(model, dtype=dtype, num_kv_blocks=10, max_num_batched_tokens=32)
    assert generate(crowded, prompts, params) == expected
    assert crowded.stats()["num_preemptions"] > 0


@pytest.mark.parametrize("variant", ["opt", "gpt2", "llama-dynamic", "mistral-window"])
def test_other_architectures_too(variant: str, tiny_model: Callable[..., Path]) -> None:
    path = tiny_model(variant)
    prompts, params = mixed_prompts()[:24], mixed_params()[:24]
    lone = make_engine(path, enable_prefix_caching=False)
    expected = generate(lone, prompts, params, one_by_one=True)
    crowded = make_engine(path, num_kv_blocks=10, max_num_batched_tokens=32)
    assert generate(crowded, prompts, params) == expected
    assert crowded.stats()["num_preemptions"] > 0


# The prefix cache: a hit gives the tokens that computing would have given.


@pytest.mark.parametrize("shared", [15, 16, 17, 31, 32, 33, 47, 48, 49])
def test_a_hit_of_k_blocks_and_a_token_more_or_less(model: Path, shared: int) -> None:
    first = random_prompt(64, 320, seed=20)
    other = [(token + 1) % 320 for token in first]
    prompt = first[:shared] + other[shared:60]  # differs from `first` at `shared`
    for params in (greedy(20), sampled(20, seed=5)):
        cold = generate(make_engine(model, enable_prefix_caching=False), [prompt], params)
        engine = make_engine(model)
        generate(engine, [first], greedy(4))
        collector = Collector(engine)
        request = engine.add_request(prompt, params)
        collector.run()
        assert [collector.tokens[(request, 0)]] == cold
        assert collector.cached[request] == shared // BLOCK * BLOCK
        assert engine.stats()["prefix_cache_hits"] == shared // BLOCK * BLOCK


@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 33, 48, 49, 64])
def test_a_hit_of_the_whole_prompt(model: Path, length: int) -> None:
    prompt = random_prompt(length, 320, seed=21)
    cold = generate(make_engine(model, enable_prefix_caching=False), [prompt], sampled(20, seed=6))
    engine = make_engine(model)
    for _ in range(3):
        assert generate(engine, [prompt], sampled(20, seed=6)) == cold
    # The last token is computed each time, since its logits are needed.
    assert engine.stats()["prefix_cache_hits"] <= 2 * (length - 1)
    assert engine.stats()["prefix_cache_hits"] >= 2 * ((length - 1) // BLOCK * BLOCK)


def test_a_hit_on_generated_tokens(model: Path) -> None:
    """A chat's next turn: the prompt is an earlier prompt and its answer."""
    engine = make_engine(model)
    prompt = random_prompt(21, 320, seed=22)
    answer = generate(engine, [prompt], greedy(40))[0]
    following = prompt + answer + random_prompt(5, 320, seed=23)
    cold = generate(make_engine(model, enable_prefix_caching=False), [following], greedy(20))
    assert generate(engine, [following], greedy(20)) == cold
    assert engine.stats()["prefix_cache_hits"] >= 48


def test_a_hit_after_preemption(model: Path) -> None:
    prompts = [random_prompt(50, 320, seed=30 + i) for i in range(6)]
    cold = generate(
        make_engine(model, enable_prefix_caching=False), prompts, greedy(40), one_by_one=True
    )
    engine = make_engine(model, num_kv_blocks=12)
    for _ in range(2):
        assert generate(engine, prompts, greedy(40)) == cold
    assert engine.stats()["num_preemptions"] > 0


def test_a_salt_separates_prefixes(model: Path) -> None:
    engine = make_engine(model)
    prompt = random_prompt(64, 320, seed=40)
    results = []
    for salt in ("a", "b", "a"):
        collector = Collector(engine)
        request = engine.add_request(prompt, greedy(8), salt)
        collector.run()
        results.append((collector.cached[request], collector.tokens[(request, 0)]))
    assert results[0][1] == results[1][1] == results[2][1]
    assert [cached for cached, _ in results[:2]] == [0, 0]
    assert results[2][0] >= 48


def test_reset_prefix_cache_forgets(model: Path) -> None:
    engine = make_engine(model)
    prompt = random_prompt(64, 320, seed=41)
    first = generate(engine, [prompt], greedy(8))
    engine.reset_prefix_cache()
    assert generate(engine, [prompt], greedy(8)) == first
    assert engine.stats()["prefix_cache_hits"] == 0


# The real model, a smaller set.

TEXTS = [
    "The capital of France is",
    "The capital of France is a city that",
    "Once upon a time",
    "A recipe for apple pie:",
    "The sun is a star, and",
    "One, two, three,",
    "In the beginning there was",
    "She opened the door and saw",
    "The law of gravity says that",
    "Once upon a time in the west",
    "To be or not to be,",
    "Rain fell on the old town",
]


def smollm2_params() -> list[SamplingParams]:
    return [
        SamplingParams(temperature=i % 2 * 0.9, seed=i, max_tokens=16, ignore_eos=True)
        for i in range(len(TEXTS))
    ]


def smollm2_tokens(path: Path, one_by_one: bool = False, **options: Any) -> list[Tokens]:
    with LLM(str(path), device=DEVICE, dtype="float32", max_model_len=128, **options) as llm:
        groups = [[i] for i in range(len(TEXTS))] if one_by_one else [list(range(len(TEXTS)))]
        outputs = []
        for group in groups:
            texts = [TEXTS[i] for i in group]
            params = [smollm2_params()[i] for i in group]
            outputs += llm.generate(texts, params, use_tqdm=False)
        assert (llm.stats()["num_preemptions"] > 0) == ("num_gpu_blocks_override" in options)
        return [list(output.outputs[0].token_ids) for output in outputs]


@pytest.fixture(scope="module")
def smollm2_alone(smollm2: Path) -> list[Tokens]:
    return smollm2_tokens(smollm2, one_by_one=True, enable_prefix_caching=False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_num_batched_tokens": 32, "enable_prefix_caching": False},
        # A request needs 2 blocks in the end and begins with 1.
        {"num_gpu_blocks_override": 8},
    ],
    ids=str,
)
def test_smollm2_together_equals_alone(
    smollm2: Path, smollm2_alone: list[Tokens], options: dict[str, Any]
) -> None:
    assert smollm2_tokens(smollm2, **options) == smollm2_alone
