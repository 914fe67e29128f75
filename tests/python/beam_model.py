"""Beam search written down plainly, as the model that the engine's is compared with: vLLM's rule
(section by section as its offline search does it), transformers' rules, and groups of beams with
a Hamming diversity penalty (Vijayakumar et al. 2016, as transformers had it up to version 4).

It is driven by log-probabilities: a function of the generated tokens so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

NextLogprobs = Callable[[list[int]], np.ndarray]  # generated tokens -> [vocab]; -inf is forbidden


def log_softmax(logits: np.ndarray) -> np.ndarray:
    row = logits.astype(np.float64)
    row = row - row.max()
    return row - np.log(np.exp(row).sum())


@dataclass
class Rules:
    width: int
    max_tokens: int
    length_penalty: float = 1.0
    early_stopping: bool | str | None = None  # None: vLLM's rule
    ends: frozenset[int] = frozenset()
    num_groups: int = 1
    diversity_penalty: float = 0.0
    is_end: Callable[[list[int]], bool] = lambda tokens: False  # beside `ends`

    def score(self, logprob: float, length: int) -> float:
        return float(logprob / max(length, 1) ** self.length_penalty)


@dataclass
class Found:
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0
    score: float = 0.0
    ended: bool = False  # by an end token, not by the length


@dataclass
class _Group:
    rules: Rules
    width: int
    live: list[Found] = field(default_factory=lambda: [Found()])
    kept: list[Found] = field(default_factory=list)
    done: bool = False
    chosen: list[int] = field(default_factory=list)  # the last step's tokens of beams not ended

    def longer(self, beam: Found, token: int, logprob: float) -> Found:
        tokens = [*beam.tokens, token]
        ended = token in self.rules.ends or self.rules.is_end(tokens)
        return Found(tokens, logprob, self.rules.score(logprob, len(tokens)), ended)

    def candidates(self, next_logprobs: NextLogprobs, taken: list[int], most: int) -> list[Found]:
        """The `most` best of each live beam, beam by beam."""
        found = []
        for beam in self.live:
            row = np.array(next_logprobs(beam.tokens), dtype=np.float64)
            if taken:
                row -= self.rules.diversity_penalty * np.bincount(taken, minlength=len(row))
            for token in np.argsort(-row, kind="stable")[:most]:
                if np.isfinite(row[token]):
                    found.append(self.longer(beam, int(token), beam.logprob + float(row[token])))
        return found

    def step(self, next_logprobs: NextLogprobs, taken: list[int], length: int) -> None:
        if self.rules.early_stopping is None:
            self._vllm(self.candidates(next_logprobs, taken, 2 * self.width), length)
        else:
            most = max(2, 1 + len(self.rules.ends)) * self.width
            self._transformers(self.candidates(next_logprobs, taken, most), most, length)

    def _vllm(self, candidates: list[Found], length: int) -> None:
        self.kept += [found for found in candidates if found.ended]
        alive = [found for found in candidates if not found.ended]
        alive = sorted(alive, key=lambda found: found.score, reverse=True)[: self.width]
        self.live = alive
        if length == self.rules.max_tokens:
            self.kept += self.live
            self.live = []
        self.chosen = [found.tokens[-1] for found in alive]
        self.done = not self.live

    def _transformers(self, candidates: list[Found], most: int, length: int) -> None:
        rules, last = self.rules, length == self.rules.max_tokens
        best = sorted(candidates, key=lambda found: found.logprob, reverse=True)[:most]
        if not (rules.early_stopping is True and len(self.kept) == self.width):
            self.kept += [found for found in best[: self.width] if found.ended or last]
        self.kept = sorted(self.kept, key=lambda found: found.score, reverse=True)[: self.width]
        alive = [found for found in best if not found.ended][: self.width]
        self.chosen = [found.tokens[-1] for found in alive]
        self.live = [] if last else alive
        full = len(self.kept) == self.width
        if not self.live or (full and rules.early_stopping is True):
            self.done = True
        elif full:
            favoured = rules.early_stopping == "never" and rules.length_penalty > 0
            hoped = rules.score(self.live[0].logprob, rules.max_tokens if favoured else length)
            self.done = not hoped > self.kept[-1].score


class Search:
    """All groups of one prompt, a token at a time."""

    def __init__(self, next_logprobs: NextLogprobs, rules: Rules) -> None:
        self.next_logprobs, self.rules = next_logprobs, rules
        width = rules.width // rules.num_groups
        self.groups = [_Group(rules, width) for _ in range(rules.num_groups)]
        self.length = 0

    @property
    def done(self) -> bool:
        return all(group.done for group in self.groups)

    def step(self) -> None:
        self.length += 1
        taken: list[int] = []
        for group in self.groups:
            if not group.done:
                group.step(self.next_logprobs, taken, self.length)
                taken += group.chosen

    def live(self) -> list[Found]:
        """The live beams, best first."""
        beams = [beam for group in self.groups if not group.done for beam in group.live]
        return sorted(beams, key=lambda found: found.logprob, reverse=True)

    def results(self) -> list[Found]:
        best = []
        for group in self.groups:
            best += sorted(group.kept, key=lambda f: f.score, reverse=True)[: group.width]
        return sorted(best, key=lambda found: found.score, reverse=True)[: self.rules.width]


def search(next_logprobs: NextLogprobs, rules: Rules) -> list[Found]:
    """The beams of a prompt, best first."""
    whole = Search(next_logprobs, rules)
    while not whole.done:
        whole.step()
    return whole.results()


def enumerate_all(next_logprobs: NextLogprobs, rules: Rules) -> list[Found]:
    """Every sequence that ends by an end token or by its length, best first."""
    found: list[Found] = []
    group = _Group(rules, rules.width)
    open_ = [Found()]
    while open_:
        beam = open_.pop()
        row = next_logprobs(beam.tokens)
        for token in np.flatnonzero(np.isfinite(row)):
            longer = group.longer(beam, int(token), beam.logprob + float(row[token]))
            ends = longer.ended or len(longer.tokens) == rules.max_tokens
            (found if ends else open_).append(longer)
    return sorted(found, key=lambda each: each.score, reverse=True)
