"""Sampling: seeds, samples, filters against exact probabilities, and what ends a request."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_under_test import DEVICE
from engine_driver import Collector, Tokens, generate, greedy, make_engine, random_prompt, sampled
from octavo import LLM, SamplingParams, _core
from octavo.errors import ValidationError

VOCAB = 320
TINY_VOCAB = 12
DRAWS = 6000


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("llama", tokenizer=True)


@pytest.fixture(scope="module")
def llm(model: Path) -> Any:
    with LLM(str(model), device=DEVICE, dtype="float32", max_model_len=256) as llm:
        yield llm


@pytest.fixture(scope="module")
def small(tiny_model: Callable[..., Path]) -> _core.Engine:
    """A vocabulary of 12: every probability can be counted."""
    path = tiny_model("llama", overrides={"vocab_size": TINY_VOCAB})
    return make_engine(path, num_kv_blocks=1024)


# Seeds and samples.


def test_a_seed_is_enough(model: Path) -> None:
    """The same tokens in any engine, batch, order and moment."""
    prompt = random_prompt(19, VOCAB, seed=1)
    expected = generate(make_engine(model), [prompt], sampled(30, seed=42))[0]
    for options in (
        {"seed": 7},
        {"max_num_seqs": 2},
        {"num_threads": 1, "max_num_batched_tokens": 5},
    ):
        engine = make_engine(model, **options)
        neighbours = [random_prompt(8 + i, VOCAB, seed=i) for i in range(9)]
        params: list[Any] = [sampled(30, seed=i) for i in range(9)]
        tokens = generate(engine, [*neighbours, prompt], [*params, sampled(30, seed=42)])
        assert tokens[-1] == expected
    assert len(set(expected)) > 5


def test_other_seeds_give_other_tokens(model: Path) -> None:
    prompt = random_prompt(19, VOCAB, seed=1)
    engine = make_engine(model)
    params = [sampled(20, seed=seed) for seed in [*range(40), 2**32, 2**63, 2**64 - 1]]
    tokens = generate(engine, [prompt] * len(params), params)
    assert len({tuple(t) for t in tokens}) == len(params)


def test_the_engines_seed_repeats_a_whole_run(model: Path) -> None:
    prompts = [random_prompt(9, VOCAB, seed=3)] * 6
    unseeded = _core.SamplingParams(temperature=1.0, max_tokens=20, ignore_eos=True)
    runs = [generate(make_engine(model, seed=seed), prompts, unseeded) for seed in (5, 5, 6)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert len({tuple(tokens) for tokens in runs[0]}) == len(prompts)  # each request draws its own


@pytest.mark.parametrize("n", [2, 3, 16])
def test_n_samples(model: Path, n: int) -> None:
    prompt = random_prompt(37, VOCAB, seed=4)
    runs = []
    for options in ({}, {"max_num_seqs": 2, "max_num_batched_tokens": 16, "num_kv_blocks": 9}):
        engine = make_engine(model, **options)
        collector = Collector(engine)
        request = engine.add_request(prompt, sampled(20, seed=9, n=n))
        collector.run()
        runs.append([collector.tokens[(request, i)] for i in range(n)])
        assert engine.stats()["num_blocks_used"] == 0
    assert runs[0] == runs[1]
    assert len({tuple(tokens) for tokens in runs[0]}) == n
    # The first sample is the one that n=1 gives.
    assert generate(make_engine(model), [prompt], sampled(20, seed=9))[0] == runs[0][0]


def test_n_samples_through_the_llm(llm: LLM) -> None:
    params = SamplingParams(n=4, seed=3, max_tokens=12, ignore_eos=True)
    first, second = llm.generate(["Hello", "Hello"], params, use_tqdm=False)
    assert [sample.index for sample in first.outputs] == [0, 1, 2, 3]
    assert all(len(sample.token_ids) == 12 for sample in first.outputs)
    assert all(sample.finish_reason == "length" for sample in first.outputs)
    assert [s.token_ids for s in first.outputs] == [s.token_ids for s in second.outputs]
    assert len({tuple(s.token_ids) for s in first.outputs}) == 4


def test_greedy_is_the_largest_logit(model: Path) -> None:
    engine = make_engine(model)
    for length in (1, 7, 30):
        prompt = random_prompt(length, VOCAB, seed=5)
        for token in generate(engine, [prompt], greedy(12))[0]:
            assert token == int(engine.compute_logits(prompt)[-1].argmax())
            prompt = [*prompt, token]


# Distributions.


def kept_probabilities(logits: np.ndarray, fields: dict[str, Any]) -> np.ndarray:
    """The exact distribution: temperature, min_p, top_k (ties kept), top_p; renormalised."""
    scaled = logits.astype(np.float64) / fields.get("temperature", 1.0)
    probabilities = np.exp(scaled - scaled.max())
    keep = probabilities >= fields.get("min_p", 0.0)  # the largest is one
    if top_k := fields.get("top_k", 0):
        keep &= scaled >= np.sort(scaled)[-top_k]
    probabilities = np.where(keep, probabilities, 0.0)
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(probabilities[order])[:-1]])
    keep = np.zeros(len(logits), dtype=bool)
    keep[order] = before < fields.get("top_p", 1.0)
    probabilities = np.where(keep, probabilities, 0.0)
    return probabilities / probabilities.sum()


def assert_drawn_from(counts: Counter[int], probabilities: np.ndarray) -> None:
    """A chi-square test of all cells, of which the rare ones are merged, at five deviations."""
    total = sum(counts.values())
    expected = probabilities * total
    assert all(probabilities[token] > 0 for token in counts), "drew what was filtered out"
    assert all(counts[token] > 0 for token in np.flatnonzero(expected > 30)), "never drew a token"
    common = expected >= 5
    observed = np.array([counts[token] for token in range(len(expected))], dtype=np.float64)
    pairs = [*zip(observed[common], expected[common], strict=True)]
    if expected[~common].sum() >= 1:
        pairs.append((observed[~common].sum(), expected[~common].sum()))
    if len(pairs) == 1:
        return
    statistic = sum((o - e) ** 2 / e for o, e in pairs)
    freedom = len(pairs) - 1
    assert statistic <= freedom + 5 * math.sqrt(2 * freedom), (
        f"chi-square {statistic:.1f}, {freedom}"
    )


FILTERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"top_k": 1},
    {"top_k": 3},
    {"top_k": TINY_VOCAB},
    {"top_k": -1},
    {"top_p": 0.5},
    {"top_p": 0.9, "temperature": 1.7},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"top_k": 6, "top_p": 0.8, "min_p": 0.02, "temperature": 1.5},
]
PROMPT = [1, 5, 7, 2, 11, 3]


@pytest.mark.parametrize("fields", FILTERS, ids=str)
def test_filters_give_the_exact_distribution(small: _core.Engine, fields: dict[str, Any]) -> None:
    logits = small.compute_logits(PROMPT)[-1]
    exact = {**fields, "top_k": max(fields.get("top_k", 0), 0)}
    collector = Collector(small)
    request = small.add_request(PROMPT, sampled(1, seed=11, n=DRAWS, **fields))
    collector.run()
    counts = Counter(collector.tokens[(request, i)][0] for i in range(DRAWS))
    assert_drawn_from(counts, kept_probabilities(logits, exact))


def test_seeds_are_as_good_as_samples(small: _core.Engine) -> None:
    logits = small.compute_logits(PROMPT)[-1]
    params = [sampled(1, seed=seed) for seed in range(3000)]
    tokens = generate(small, [PROMPT] * len(params), params)
    counts = Counter(token for (token,) in tokens)
    assert_drawn_from(counts, kept_probabilities(logits, {}))


def test_successive_draws_are_independent(small: _core.Engine) -> None:
    """The second token, given the first: no trace of the first draw's number."""
    collector = Collector(small)
    request = small.add_request(PROMPT, sampled(2, seed=13, n=DRAWS))
    collector.run()
    pairs = [tuple(collector.tokens[(request, i)]) for i in range(DRAWS)]
    for first, count in Counter(first for first, _ in pairs).most_common(3):
        assert count > 200
        following = Counter(second for one, second in pairs if one == first)
        logits = small.compute_logits([*PROMPT, first])[-1]
        assert_drawn_from(following, kept_probabilities(logits, {}))


# What ends a request.


@pytest.fixture(scope="module")
def answer(model: Path) -> Tokens:
    """40 greedy tokens after PROMPT, without an end."""
    return generate(make_engine(model), [PROMPT], greedy(40))[0]


def first_repeat_free(tokens: Tokens, at: int) -> int:
    """The first position from `at` whose token did not occur before."""
    return next(i for i in range(at, len(tokens)) if tokens[i] not in tokens[:i])


def run_one(engine: _core.Engine, params: Any, prompt: Tokens = PROMPT) -> Collector:
    collector = Collector(engine)
    engine.add_request(prompt, params)
    collector.run()
    return collector


def only(collector: Collector) -> tuple[Tokens, str, int | None]:
    (key,) = collector.reasons
    return collector.tokens[key], collector.reasons[key], collector.stop_tokens[key]


def test_stop_token_ids(model: Path, answer: Tokens) -> None:
    engine = make_engine(model)
    at = first_repeat_free(answer, 5)
    stop = [answer[at], 3 if 3 not in answer else answer[-1]]
    assert only(run_one(engine, greedy(40, stop_token_ids=stop))) == (
        answer[: at + 1],
        "stop",
        answer[at],
    )
    # The first token may be one.
    got = only(run_one(engine, greedy(40, stop_token_ids=[answer[0]])))
    assert got == (answer[:1], "stop", answer[0])


def test_end_of_sequence(tiny_model: Callable[..., Path], answer: Tokens) -> None:
    at = first_repeat_free(answer, 6)
    engine = make_engine(tiny_model("llama", overrides={"eos_token_id": answer[at]}))
    assert engine.model_info.eos_token_id == answer[at]
    free = {"ignore_eos": False}
    assert only(run_one(engine, greedy(40, **free))) == (answer[: at + 1], "stop", None)
    assert only(run_one(engine, greedy(40))) == (answer, "length", None)  # ignored
    # Ending and reaching the length at once is a stop.
    assert only(run_one(engine, greedy(at + 1, **free))) == (answer[: at + 1], "stop", None)
    assert only(run_one(engine, greedy(at, **free))) == (answer[:at], "length", None)


def test_min_tokens_bans_every_end(tiny_model: Callable[..., Path], answer: Tokens) -> None:
    at = first_repeat_free(answer, 4)
    engine = make_engine(tiny_model("llama", overrides={"eos_token_id": answer[at]}))
    for least in range(1, 12):
        tokens, _, _ = only(run_one(engine, greedy(40, ignore_eos=False, min_tokens=least)))
        assert len(tokens) > least
        assert answer[at] not in tokens[:least]
        if least <= at:  # not in the way yet
            assert tokens == answer[: at + 1]
        else:
            assert tokens[:at] == answer[:at]
            assert tokens[at] != answer[at]
    # The same for stop ids, and the ban chooses the best of the others.
    stop = greedy(40, stop_token_ids=[answer[at]], min_tokens=40)
    tokens, reason, _ = only(run_one(make_engine(tiny_model("llama")), stop))
    assert (len(tokens), reason) == (40, "length")
    logits = engine.compute_logits(PROMPT + answer[:at])[-1].copy()
    logits[answer[at]] = -np.inf
    assert tokens[at] == int(logits.argmax())


def test_max_tokens(model: Path, answer: Tokens) -> None:
    engine = make_engine(model, max_model_len=64)
    for count in (1, 2, 16, 40):
        assert only(run_one(engine, greedy(count))) == (answer[:count], "length", None)
    # None and more than fits: up to the context.
    for count in (None, 1000, 2**31 - 1):
        tokens, reason, _ = only(run_one(engine, greedy(count)))
        assert (len(tokens), reason) == (64 - len(PROMPT), "length")
    full = random_prompt(63, VOCAB, seed=1)
    assert len(only(run_one(engine, greedy(None), full))[0]) == 1


def test_max_tokens_is_16_by_default(llm: LLM) -> None:
    params = SamplingParams(temperature=0, ignore_eos=True)
    (output,) = llm.generate("Hello", params, use_tqdm=False)
    assert len(output.outputs[0].token_ids) == 16
    assert output.outputs[0].finish_reason == "length"


@pytest.fixture(scope="module")
def story(llm: LLM) -> Any:
    """A greedy text with printable parts, and its prompt."""
    params = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    prompts = ["The", "A dictionary", "Return the", "iterable", "def f(x):", "Words of text"]
    outputs = llm.generate(prompts, params, use_tqdm=False)

    def printable(output: Any) -> int:
        return sum(char.isascii() and char.isprintable() for char in output.outputs[0].text)

    best = max(outputs, key=printable)
    assert printable(best) >= 20
    return best


def stop_strings(text: str) -> list[str]:
    """Printable pieces of one to four characters that begin in the middle of `text`."""
    found = []
    for size in (1, 2, 3, 4):
        for at in range(8, len(text) - size):
            piece = text[at : at + size]
            if piece.isascii() and piece.isprintable() and text.index(piece) == at:
                found.append(piece)
                break
    assert len(found) >= 3
    return found


def test_stop_strings_cut_the_text(llm: LLM, story: Any) -> None:
    text = story.outputs[0].text
    for stop in stop_strings(text):
        for include in (False, True):
            params = SamplingParams(
                temperature=0,
                max_tokens=60,
                ignore_eos=True,
                stop=stop,
                include_stop_str_in_output=include,
            )
            sample = llm.generate(story.prompt, params, use_tqdm=False)[0].outputs[0]
            end = text.index(stop) + (len(stop) if include else 0)
            assert sample.text == text[:end], repr(stop)
            assert (sample.finish_reason, sample.stop_reason) == ("stop", stop)
            # The tokens run up to the one that completed the string.
            count = len(sample.token_ids)
            assert sample.token_ids == story.outputs[0].token_ids[:count]
            tokenizer = llm.get_tokenizer()
            assert stop not in tokenizer.decode(sample.token_ids[:-1], skip_special_tokens=True)
            assert stop in tokenizer.decode(sample.token_ids, skip_special_tokens=True)


def test_stop_strings_wait_for_min_tokens(llm: LLM, story: Any) -> None:
    text = story.outputs[0].text
    stop = stop_strings(text)[0]
    params = SamplingParams(
        temperature=0, max_tokens=60, min_tokens=60, ignore_eos=True, stop=[stop]
    )
    sample = llm.generate(story.prompt, params, use_tqdm=False)[0].outputs[0]
    assert sample.token_ids == story.outputs[0].token_ids
    assert len(sample.token_ids) == 60


def test_a_stop_string_of_one_sample_leaves_the_others(llm: LLM, story: Any) -> None:
    free = SamplingParams(n=4, seed=8, max_tokens=40, ignore_eos=True)
    whole = llm.generate(story.prompt, free, use_tqdm=False)[0].outputs
    stop = stop_strings(whole[1].text)[0]
    bound = SamplingParams(n=4, seed=8, max_tokens=40, ignore_eos=True, stop=[stop])
    for before, after in zip(
        whole, llm.generate(story.prompt, bound, use_tqdm=False)[0].outputs, strict=True
    ):
        if stop in before.text:
            assert after.text == before.text[: before.text.index(stop)]
            assert after.stop_reason == stop
        else:
            assert (after.text, after.token_ids) == (before.text, before.token_ids)
            assert after.finish_reason == "length"


def test_stop_reasons_through_the_llm(model: Path, llm: LLM, answer: Tokens) -> None:
    at = first_repeat_free(answer, 5)
    params = SamplingParams(
        temperature=0, max_tokens=40, ignore_eos=True, stop_token_ids=[answer[at]]
    )
    sample = llm.generate({"prompt_token_ids": PROMPT}, params, use_tqdm=False)[0].outputs[0]
    assert sample.token_ids == answer[: at + 1]
    assert (sample.finish_reason, sample.stop_reason) == ("stop", answer[at])


def test_further_ends_of_generation_config(
    tiny_model: Callable[..., Path], tmp_path: Path, answer: Tokens
) -> None:
    """An explicit SamplingParams takes no defaults from generation_config.json, but its end ids."""
    import json
    import shutil

    at = first_repeat_free(answer, 5)
    path = Path(shutil.copytree(tiny_model("llama", tokenizer=True), tmp_path / "model"))
    (path / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [0, answer[at]], "temperature": 0.3, "max_new_tokens": 2})
    )
    with LLM(str(path), device=DEVICE, dtype="float32") as llm:
        prompt = {"prompt_token_ids": PROMPT}
        params = SamplingParams(temperature=0, max_tokens=40)
        sample = llm.generate(prompt, params, use_tqdm=False)[0].outputs[0]
        assert sample.token_ids == answer[: at + 1]
        assert (sample.finish_reason, sample.stop_reason) == ("stop", answer[at])
        ignoring = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
        sample = llm.generate(prompt, ignoring, use_tqdm=False)[0].outputs[0]
        assert sample.token_ids == answer
        # Without parameters the defaults are the model's.
        assert len(llm.generate(prompt, use_tqdm=False)[0].outputs[0].token_ids) <= 2


def test_a_seed_out_of_range_is_refused(small: _core.Engine) -> None:
    with pytest.raises((ValidationError, TypeError, OverflowError)):
        small.add_request(PROMPT, sampled(1, seed=2**64))
    with pytest.raises((ValidationError, TypeError, OverflowError)):
        small.add_request(PROMPT, sampled(1, seed=-1))
