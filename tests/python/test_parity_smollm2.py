"""The real SmolLM2-135M-Instruct, from its Q4_1 GGUF file, against transformers in float32 on
weights that the `gguf` package decoded: token ids of prompts, logits, and greedy tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from device_under_test import DEVICE
from engine_driver import generate, greedy, make_engine
from octavo import LLM, SamplingParams
from oracle import Oracle, count_equal_tokens, max_difference

NUM_GREEDY = 32
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "Photosynthesis is the process by which",
    "Dear Sir or Madam,\n\nI am writing to",
    "The three laws of motion that Isaac Newton described are",
    "To make a good loaf of bread, you first",
    "In 1969, Neil Armstrong",
    "The difference between a virus and a bacterium is that",
    "def fibonacci(n):\n    ",
    "Water boils at 100 degrees Celsius, but on a high mountain",
    "My grandmother used to tell me that",
    "The main causes of the First World War were",
    "Here is a list of five healthy breakfasts:\n1.",
    "When the sun sets over the desert,",
    "A prime number is a natural number greater than 1 that",
    "The detective looked at the broken window and said:",
    "Our school library opens at eight o'clock, and",
    "Economists say that inflation",
    "The human heart has four chambers:",
    "If you want to learn to play the piano, the best way",
]
# What tokenizers trip over: digits, runs of spaces, other scripts, special tokens.
ODD_TEXTS = [
    "3.14159 and 1,234,567",
    "  two  spaces\tand a tab\n\n\nthree lines ",
    "naïve café, Straße, 東京, 🙂👍🏽",
    "it's we'll I'd THEY'VE don't",
    "<|im_start|>user\nHi<|im_end|>\n",
    "def f(x):\n    return x**2  # square",
    "a" * 70,
]


@pytest.fixture(scope="module")
def oracle(smollm2: Path) -> Oracle:
    return Oracle(smollm2)


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Any:
    """transformers' own conversion of the file's tokenizer."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)


@pytest.fixture(scope="module")
def llm(smollm2: Path) -> Any:
    llm = LLM(str(smollm2), device=DEVICE, dtype="float32", max_model_len=512)
    yield llm
    llm.close()


def test_prompt_ids_equal_those_of_transformers(llm: LLM, tokenizer: Any) -> None:
    texts = PROMPTS + ODD_TEXTS
    outputs = llm.generate(texts, SamplingParams(temperature=0, max_tokens=1), use_tqdm=False)
    for text, output in zip(texts, outputs, strict=True):
        assert list(output.prompt_token_ids) == tokenizer(text).input_ids, repr(text)
        assert output.prompt == text


def test_greedy_tokens_equal_those_of_transformers(
    llm: LLM, tokenizer: Any, oracle: Oracle, parity_table: Any
) -> None:
    params = SamplingParams(temperature=0, max_tokens=NUM_GREEDY, ignore_eos=True)
    row = parity_table.row("SmolLM2-135M-Instruct Q4_1", DEVICE)
    for prompt, output in zip(PROMPTS, llm.generate(PROMPTS, params, use_tqdm=False), strict=True):
        ids, tokens = tokenizer(prompt).input_ids, output.outputs[0].token_ids
        # Its generate() is slow on two cores: once, and for the others what it would choose.
        if prompt == PROMPTS[0]:
            expected = oracle.greedy(ids, NUM_GREEDY)
        else:
            expected = oracle.greedy_choices(ids, tokens)
        row.tokens_equal += count_equal_tokens(tokens, expected, prompt)
        row.tokens_compared += NUM_GREEDY
        assert output.outputs[0].text == tokenizer.decode(tokens, skip_special_tokens=True)


def test_logits_equal_those_of_transformers(
    smollm2: Path, tokenizer: Any, oracle: Oracle, parity_table: Any
) -> None:
    engine = make_engine(smollm2, max_model_len=512, num_kv_blocks=16)
    row = parity_table.row("SmolLM2-135M-Instruct Q4_1", DEVICE)
    for prompt in (PROMPTS[0], " ".join(PROMPTS[1:6])):
        ids = tokenizer(prompt).input_ids
        difference = max_difference(engine.compute_logits(ids), oracle.logits(ids))
        row.difference = max(row.difference, difference)
        assert difference <= 1e-3, f"{len(ids)} tokens: logits differ by up to {difference:.3g}"


def test_reference_back_end_agrees(
    smollm2: Path, tokenizer: Any, oracle: Oracle, parity_table: Any
) -> None:
    """One short prompt: the scalar reference is slow."""
    engine = make_engine(smollm2, device="ref", max_model_len=64, num_kv_blocks=4)
    ids = tokenizer(PROMPTS[0]).input_ids
    row = parity_table.row("SmolLM2-135M-Instruct Q4_1", "ref")
    row.difference = max_difference(engine.compute_logits(ids), oracle.logits(ids))
    assert row.difference <= 1e-3
    expected = oracle.greedy(ids, 2)
    tokens = generate(engine, [ids], greedy(2))[0]
    row.tokens_equal = count_equal_tokens(tokens, expected, PROMPTS[0])
    row.tokens_compared = 2
