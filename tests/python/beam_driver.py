"""What the tests of beam search on the compiled engine share: an LLM of token ids over a tiny model
whose beams end often, and its log-probabilities as the plain model takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from beam_model import Found, NextLogprobs, Rules, log_softmax
from device_under_test import DEVICE
from engine_driver import Tokens
from octavo import LLM, BeamSearchParams, RequestOutput, _core

# Of each model a token that is often among the most probable ones: its end of sequence.
FREQUENT = {"opt": 133, "llama": 192, "gpt2": 24}


def make_llm(model: str | Path, **options: Any) -> LLM:
    return LLM(
        str(model),
        **{
            "device": DEVICE,
            "dtype": "float32",
            "skip_tokenizer_init": True,
            "num_gpu_blocks_override": 1024,
            **options,
        },
    )


def search_all(
    llm: LLM, prompts: Sequence[Any], params: BeamSearchParams | Sequence[Any]
) -> list[RequestOutput]:
    return llm.generate(prompts, params, use_tqdm=False)


def search_one(llm: LLM, prompt: Any, params: BeamSearchParams) -> list[Any]:
    (output,) = search_all(llm, [prompt], params)
    return output.outputs


def tokens_of(beams: Sequence[Any]) -> list[Tokens]:
    return [beam.token_ids for beam in beams]


def bits_of(output: RequestOutput) -> list[Any]:
    """All that batching must not change: tokens, and log-probabilities to the last bit."""
    return [
        (
            sample.token_ids,
            sample.text,
            sample.finish_reason,
            sample.stop_reason,
            sample.cumulative_logprob,
            [[(i, e.logprob, e.rank) for i, e in row.items()] for row in sample.logprobs or ()],
        )
        for sample in output.outputs
    ]


Edit = Callable[[np.ndarray, Tokens], None]  # changes the logits that follow generated tokens


def language_of(engine: _core.Engine, prompt: Tokens, *edits: Edit) -> NextLogprobs:
    """The model's log-probabilities after a prompt and generated tokens."""
    known: dict[tuple[int, ...], np.ndarray] = {}

    def next_logprobs(tokens: Tokens) -> np.ndarray:
        key = tuple(tokens)
        if key not in known:
            logits = engine.compute_logits([*prompt, *tokens])[-1].astype(np.float64)
            for edit in edits:
                edit(logits, tokens)
            known[key] = log_softmax(logits)
        return known[key]

    return next_logprobs


def rules_of(params: BeamSearchParams, *ends: int) -> Rules:
    return Rules(
        width=params.beam_width,
        max_tokens=params.max_tokens,
        length_penalty=params.length_penalty,
        early_stopping=params.early_stopping,
        ends=frozenset(ends),
        num_groups=params.num_beam_groups,
        diversity_penalty=params.diversity_penalty,
    )


def check_equal(
    beams: Sequence[Any], expected: Sequence[Found], params: BeamSearchParams, tie: float = 1e-6
) -> int:
    """Tokens of each beam, and scores within 1e-4 of themselves. Beams whose scores are no further
    apart than `tie` have no order; returns how many of those there were."""
    assert len(beams) == len(expected)
    scores = [found.score for found in expected]
    ties = 0
    for i, (beam, found) in enumerate(zip(beams, expected, strict=True)):
        score = params.score(beam.cumulative_logprob, len(beam.token_ids))
        assert abs(score - found.score) <= 1e-4 * abs(found.score), (i, score, found)
        if any(abs(found.score - s) <= tie for j, s in enumerate(scores) if j != i):
            ties += 1
            continue
        assert beam.token_ids == found.tokens, f"beam {i}: {scores}"
        assert beam.finish_reason == ("stop" if found.ended else "length")
    return ties
