"""The beam searches of the stand-in for the engine: the plain model over its `language`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from beam_model import Found, Rules, Search
from fake_core import FakeEngine, FakeOutput

_RULES = {"vllm": None, "true": True, "false": False, "never": "never"}


@dataclass
class FakeBeam:
    token_ids: list[int]
    logprob: float
    score: float
    finish_reason: str | None = None
    stop_token_id: int | None = None
    stop_index: int = -1
    logprobs: list[tuple[list[int], list[float], list[int]]] = field(default_factory=list)


class FakeBeams:
    """One search in flight."""

    def __init__(self, engine: FakeEngine, prompt: list[int], params: Any) -> None:
        self.engine, self.prompt, self.params = engine, prompt, params
        self.stream = params.stream  # the parameters may be used again
        tokens = params.tokens
        eos = [] if tokens.ignore_eos else [engine.info.eos_token_id, *tokens.extra_eos_token_ids]
        rules = Rules(
            width=params.beam_width,
            max_tokens=params.max_tokens,
            length_penalty=params.length_penalty,
            early_stopping=_RULES[params.early_stopping],
            ends=frozenset([*eos, *tokens.stop_token_ids]),
            num_groups=params.num_groups,
            diversity_penalty=params.diversity_penalty,
            is_end=lambda tokens: self._stop_index(tokens) >= 0,
        )
        self.search = Search(engine.language, rules)

    def step(self, request_id: int) -> FakeOutput:
        output = FakeOutput(request_id, 0, [])
        if self.engine.failing and self.prompt[0] == 666:
            output.finish_reason, output.error = "error", self.engine.failing
            output.request_finished = True
            return output
        self.search.step()
        if self.search.done:
            most = self.params.num_return_sequences or self.params.beam_width
            output.beams = [self._beam(found) for found in self.search.results()[:most]]
            output.finish_reason = output.beams[0].finish_reason
            output.request_finished = True
        elif self.stream:
            best = self.search.live()[0]
            output.beams = [FakeBeam(best.tokens, best.logprob, best.score)]
        return output

    def _beam(self, found: Found) -> FakeBeam:
        last = found.tokens[-1]
        is_eos = last == self.engine.info.eos_token_id and not self.params.tokens.ignore_eos
        by_token = last in self.search.rules.ends
        return FakeBeam(
            token_ids=found.tokens,
            logprob=found.logprob,
            score=found.score,
            finish_reason="stop" if found.ended else "length",
            stop_token_id=last if by_token and not is_eos else None,
            stop_index=-1 if by_token else self._stop_index(found.tokens),
            logprobs=[self._candidates(found.tokens[:i]) for i in range(len(found.tokens))],
        )

    def _candidates(self, tokens: list[int]) -> tuple[list[int], list[float], list[int]]:
        row = np.array(self.engine.language(tokens))
        ids = np.argsort(-row, kind="stable")[: 2 * self.params.beam_width]
        return ids.tolist(), row[ids].tolist(), list(range(1, len(ids) + 1))

    def _stop_index(self, tokens: list[int]) -> int:
        if not self.params.stop or len(tokens) <= self.params.tokens.min_tokens:
            return -1
        texts = [self.engine.vocabulary[i] for i in tokens]
        before, text = b"".join(texts[:-1]), b"".join(texts)
        for i, stop in enumerate(self.params.stop):
            if text.find(stop.encode(), max(len(before) - len(stop.encode()) + 1, 0)) >= 0:
                return i
        return -1
