"""Drives the compiled engine token by token: the tests' way to Engine without a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from device_under_test import DEVICE
from octavo import _core

Tokens = list[int]


def make_engine(model: str | Path, **options: Any) -> _core.Engine:
    """An engine of few blocks, in float32 on the CPU unless `options` say otherwise."""
    return _core.Engine(
        **{
            "model": str(model),
            "device": DEVICE,
            "dtype": "float32",
            "num_kv_blocks": 256,
            **options,
        }
    )


def greedy(max_tokens: int | None, **fields: Any) -> _core.SamplingParams:
    """Greedy parameters that only the length ends."""
    return _core.SamplingParams(
        **{"temperature": 0.0, "max_tokens": max_tokens, "ignore_eos": True, **fields}
    )


def sampled(max_tokens: int | None, seed: int, **fields: Any) -> _core.SamplingParams:
    defaults = {"temperature": 1.0, "max_tokens": max_tokens, "ignore_eos": True, "seed": seed}
    return _core.SamplingParams(**{**defaults, **fields})


class Collector:
    """What every request has produced so far, by (request, sample)."""

    def __init__(self, engine: _core.Engine) -> None:
        self.engine = engine
        self.tokens: dict[tuple[int, int], Tokens] = {}
        self.reasons: dict[tuple[int, int], str] = {}
        self.stop_tokens: dict[tuple[int, int], int | None] = {}
        self.cached: dict[int, int] = {}
        self.errors: dict[tuple[int, int], str] = {}

    def step(self) -> None:
        for output in self.engine.step():
            key = (output.request_id, output.sample_index)
            assert key not in self.reasons, f"{key} produced something after its end"
            self.tokens.setdefault(key, []).extend(output.new_token_ids)
            self.cached[output.request_id] = output.num_cached_tokens
            if output.finish_reason is not None:
                self.reasons[key] = output.finish_reason
                self.stop_tokens[key] = output.stop_token_id
            if output.error:
                self.errors[key] = output.error

    def run(self) -> Collector:
        while self.engine.has_unfinished_requests():
            self.step()
        return self


def generate(
    engine: _core.Engine, prompts: list[Tokens], params: Any, *, one_by_one: bool = False
) -> list[Tokens]:
    """The tokens of sample 0 of every prompt, in their order."""
    if not isinstance(params, list):
        params = [params] * len(prompts)
    collector = Collector(engine)
    ids = []
    for prompt, each in zip(prompts, params, strict=True):
        ids.append(engine.add_request(prompt, each))
        if one_by_one:
            collector.run()
    collector.run()
    return [collector.tokens[(request, 0)] for request in ids]


def random_prompt(length: int, vocab_size: int, seed: int) -> Tokens:
    return np.random.default_rng([seed, length]).integers(0, vocab_size, length).tolist()
