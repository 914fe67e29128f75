"""Logits and greedy tokens of every architecture and variant against transformers in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import make_tiny_model
import numpy as np
import pytest
from device_under_test import DEVICE
from engine_driver import generate, greedy, make_engine, random_prompt
from oracle import Oracle, count_equal_tokens, lowest_cosine, max_difference

VARIANTS = list(make_tiny_model.VARIANTS)
BASES = ["llama", "opt", "opt-350m", "gpt2"]
# Within a block, at its edges, over several, and odd.
LENGTHS = [1, 5, 16, 17, 33, 53, 97]
TOLERANCE = {"ref": 1e-4, DEVICE: 1e-3}
NUM_GREEDY = 64


@pytest.mark.parametrize("device", ["ref", DEVICE])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits(
    variant: str, device: str, tiny_model: Callable[..., Path], oracle_of: Any, parity_table: Any
) -> None:
    path = tiny_model(variant)
    oracle = oracle_of(path)
    engine = make_engine(path, device=device)
    row = parity_table.row(variant, device)
    for length in LENGTHS:
        prompt = random_prompt(length, oracle.vocab_size, seed=1)
        difference = max_difference(engine.compute_logits(prompt), oracle.logits(prompt))
        row.difference = max(row.difference, difference)
        assert difference <= TOLERANCE[device], (
            f"{variant} on {device}, {length} tokens: logits differ by up to {difference:.3g}"
        )


@pytest.mark.parametrize("device", ["ref", DEVICE])
@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_tokens(
    variant: str, device: str, tiny_model: Callable[..., Path], oracle_of: Any, parity_table: Any
) -> None:
    path = tiny_model(variant)
    oracle = oracle_of(path)
    engine = make_engine(path, device=device)
    prompts = [random_prompt(length, oracle.vocab_size, seed=2) for length in (7, 33, 60)]
    row = parity_table.row(variant, device)
    for prompt, tokens in zip(prompts, generate(engine, prompts, greedy(NUM_GREEDY)), strict=True):
        what = f"{variant} on {device}, prompt of {len(prompt)}"
        expected = oracle.greedy(prompt, NUM_GREEDY)
        row.tokens_equal += count_equal_tokens(tokens, expected, what)
        row.tokens_compared += NUM_GREEDY


def check_rounded(path: Path, dtype: str) -> None:
    oracle = Oracle(path, rounded=dtype)
    engine = make_engine(path, dtype=dtype)
    for length in LENGTHS:
        prompt = random_prompt(length, oracle.vocab_size, seed=3)
        got = engine.compute_logits(prompt)
        assert np.isfinite(got).all()
        cosine = lowest_cosine(got, oracle.logits(prompt))
        assert cosine >= 0.9999, f"{dtype}, {length} tokens: the lowest cosine is {cosine:.6f}"


# With weights of sharpness 1 the bfloat16 of transformers itself comes to cosines of 0.998 only.
@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_on_the_same_rounded_weights(
    variant: str, tiny_model: Callable[..., Path]
) -> None:
    check_rounded(tiny_model(variant, sharpness=0.6), "bfloat16")


@pytest.mark.parametrize("variant", BASES)
def test_float16_on_the_same_rounded_weights(variant: str, tiny_model: Callable[..., Path]) -> None:
    check_rounded(tiny_model(variant, sharpness=0.6), "float16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_chunks_and_threads_change_no_bit(
    variant: str, dtype: str, tiny_model: Callable[..., Path]
) -> None:
    path = tiny_model(variant)
    whole = make_engine(path, dtype=dtype, num_threads=1)
    prompt = random_prompt(83, whole.model_info.vocab_size, seed=4)
    expected = whole.compute_logits(prompt)
    for options in (
        dict(max_num_batched_tokens=16),
        dict(max_num_batched_tokens=7),
        dict(max_num_batched_tokens=1),
        dict(num_threads=2),
    ):
        got = make_engine(path, dtype=dtype, **options).compute_logits(prompt)
        np.testing.assert_array_equal(got, expected, err_msg=str(options))


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("float32", "float16"),
        ("float16", "float16"),
        ("bfloat16", "bfloat16"),
    ],
)
def test_dtype_auto_follows_the_checkpoint(
    stored: str, expected: str, tiny_model: Callable[..., Path]
) -> None:
    engine = make_engine(tiny_model("llama", dtype=stored), dtype="auto")
    assert engine.model_info.dtype == expected
