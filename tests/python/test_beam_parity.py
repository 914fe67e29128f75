"""Beam search against transformers' generate(num_beams=...) in float32: the tokens and the scores
of every beam, for all widths, length penalties and early-stopping modes (R18)."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_core
import pytest
import torch
import transformers
from beam_driver import check_equal, make_llm, search_all
from beam_model import Found
from device_under_test import DEVICE
from engine_driver import Tokens, random_prompt
from octavo import LLM, BeamSearchParams, SamplingParams
from oracle import Oracle

pytestmark = pytest.mark.skipif(fake_core.FAKED, reason="needs the compiled engine")

WIDTHS = [1, 2, 4, 8, 16]
PENALTIES = [0.0, 0.6, 1.0, 2.0, -1.0]
RULES = [True, False, "never"]
# Of each family a token that is often among the most probable ones: its end of sequence.
ENDS = {"gpt2": 24, "llama": 190, "opt": 133}
LENGTHS = [1, 4, 7, 12, 16, 17, 25, 40]  # of the prompts of each tiny model
MAX_TOKENS = 12
VOCAB = 320

Counts = Counter[str]


@pytest.fixture(scope="module")
def counts() -> Any:
    """Ties must be rare, or nothing was compared."""
    counts: Counts = Counter()
    yield counts
    assert counts["ties"] < 0.01 * max(counts["compared"], 1), counts


def prompts_of(variant: str) -> list[Tokens]:
    seed = 90 + sorted(ENDS).index(variant)
    return [random_prompt(length, VOCAB, seed=seed) for length in LENGTHS]


def expected_beams(
    oracle: Oracle, prompt: Tokens, params: BeamSearchParams, ends: list[int]
) -> tuple[list[Found], int]:
    """What transformers gives for one prompt, best first, and its steps."""
    torch.set_num_threads(2 if oracle.model.num_parameters() > 10**7 else 1)
    width = params.beam_width
    with torch.no_grad():
        result = oracle.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            generation_config=transformers.GenerationConfig(
                num_beams=width,
                num_return_sequences=width,
                do_sample=False,
                early_stopping=params.early_stopping,
                length_penalty=params.length_penalty,
                max_new_tokens=params.max_tokens,
                eos_token_id=ends,
                pad_token_id=ends[0],
                return_dict_in_generate=True,
                output_scores=True,
            ),
        )
    found = []
    scores = [0.0] if width == 1 else result.sequences_scores.tolist()
    for row, score in zip(result.sequences[:, len(prompt) :].tolist(), scores, strict=True):
        at = next((i for i, token in enumerate(row) if token in ends), None)
        tokens = row if at is None else row[: at + 1]
        found.append(Found(tokens, score=score, ended=at is not None))
    return found, len(result.scores)


@dataclass
class Model:
    variant: str
    oracle: Oracle
    llm: LLM
    seen: Counts  # kinds of beams and searches that were compared

    @property
    def end(self) -> int:
        return ENDS[self.variant]


@pytest.fixture(scope="module", params=sorted(ENDS))
def model(request: Any, tiny_model: Callable[..., Path], oracle_of: Any) -> Any:
    path = tiny_model(request.param, overrides={"eos_token_id": ENDS[request.param]})
    with make_llm(path) as llm:
        yield Model(request.param, oracle_of(path), llm, Counter())


@pytest.mark.parametrize("width", WIDTHS)
def test_equals_transformers(model: Model, width: int, counts: Counts) -> None:
    prompts = prompts_of(model.variant)
    cases = []  # half of the prompts for each mode, in turns
    for i, (penalty, rule) in enumerate(itertools.product(PENALTIES, RULES)):
        params = BeamSearchParams(
            width, MAX_TOKENS, length_penalty=penalty, early_stopping=rule, logprobs=False
        )
        cases += [(prompt, params) for prompt in prompts[i % 2 :: 2]]
    outputs = search_all(
        model.llm, [prompt for prompt, _ in cases], [params for _, params in cases]
    )
    for (prompt, params), output in zip(cases, outputs, strict=True):
        expected, steps = expected_beams(model.oracle, prompt, params, [model.end])
        if width == 1:  # greedy: it has no score
            assert [beam.token_ids for beam in output.outputs] == [expected[0].tokens]
        else:
            counts["ties"] += check_equal(output.outputs, expected, params)
            counts["compared"] += width
        model.seen.update("ended" if found.ended else "by length" for found in expected)
        model.seen.update(["early" if steps < MAX_TOKENS else "late"])


def test_the_rules_were_exercised(model: Model) -> None:
    """Else the comparison has shown nothing: beams have ended, and ended searches early."""
    if not model.seen:
        pytest.skip("nothing was compared")
    for kind in ("ended", "by length", "early", "late"):
        assert model.seen[kind] >= 10, model.seen


@pytest.mark.parametrize("rule", RULES)
def test_several_end_tokens(model: Model, rule: bool | str, counts: Counts) -> None:
    """With more of them transformers looks at more candidates."""
    ends = [model.end, 93, 6]
    params = BeamSearchParams(
        4, MAX_TOKENS, early_stopping=rule, stop_token_ids=ends[1:], logprobs=False
    )
    prompts = prompts_of(model.variant)[::3]
    for prompt, output in zip(prompts, search_all(model.llm, prompts, params), strict=True):
        expected, _ = expected_beams(model.oracle, prompt, params, ends)
        counts["ties"] += check_equal(output.outputs, expected, params)
        counts["compared"] += 4


@pytest.mark.parametrize("rule", [*RULES, None])
def test_width_1_is_greedy(model: Model, rule: bool | str | None) -> None:
    llm, prompts = model.llm, prompts_of(model.variant)
    greedy = SamplingParams(temperature=0, max_tokens=MAX_TOKENS, logprobs=0)
    for penalty in PENALTIES:
        params = BeamSearchParams(1, MAX_TOKENS, early_stopping=rule, length_penalty=penalty)
        both = zip(search_all(llm, prompts, params), search_all(llm, prompts, greedy), strict=True)
        for searched, output in both:
            (beam,), (sample,) = searched.outputs, output.outputs
            assert beam.token_ids == sample.token_ids
            assert beam.finish_reason == sample.finish_reason
            assert beam.cumulative_logprob == pytest.approx(sample.cumulative_logprob, rel=1e-6)


# The real model: each prompt with two of the modes.

TEXTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "To make a good loaf of bread, you first",
    "In 1969, Neil Armstrong",
    "def fibonacci(n):\n    ",
    "Water boils at 100 degrees Celsius, but on a high mountain",
]
MODES = [
    BeamSearchParams(2, 10, length_penalty=0.0, early_stopping=False),
    BeamSearchParams(4, 10, length_penalty=1.0, early_stopping=True),
    BeamSearchParams(4, 10, length_penalty=2.0, early_stopping="never"),
    BeamSearchParams(8, 10, length_penalty=0.6, early_stopping=False),
    BeamSearchParams(16, 6, length_penalty=-1.0, early_stopping="never"),
    BeamSearchParams(1, 10, early_stopping=True),
]


@pytest.fixture(scope="module")
def real(smollm2: Path) -> Any:
    with LLM(str(smollm2), device=DEVICE, dtype="float32", max_model_len=256) as llm:
        yield llm, Oracle(smollm2)


@pytest.mark.parametrize("case", range(len(TEXTS)))
def test_smollm2_equals_transformers(real: Any, case: int, counts: Counts) -> None:
    """Its sentences, and commas, end a beam: the model's own end would hardly come."""
    llm, oracle = real
    tokenizer = llm.get_tokenizer()
    ends = [tokenizer.convert_tokens_to_ids(text) for text in (".", ",")]
    prompt = tokenizer.encode(TEXTS[case])
    for mode in (MODES[case], MODES[(case + 2) % len(MODES)]):
        params = mode.clone()
        params.stop_token_ids, params.ignore_eos = ends, True
        (output,) = search_all(llm, [prompt], params)
        expected, _ = expected_beams(oracle, prompt, params, ends)
        if params.beam_width == 1:
            assert [beam.token_ids for beam in output.outputs] == [expected[0].tokens]
            continue
        counts["ties"] += check_equal(output.outputs, expected, params)
        counts["compared"] += params.beam_width
