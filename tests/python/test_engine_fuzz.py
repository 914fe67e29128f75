"""Random lives of an engine under pressure: arrivals, samples, forks, aborts, salts, logits and
forgotten prefixes. Whatever a request produces is the beginning of what it produces alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_driver import Collector, Tokens, greedy, make_engine, random_prompt, sampled
from octavo.errors import OutOfMemoryError

VOCAB = 320
SHARED = random_prompt(40, VOCAB, seed=70)


class Life:
    """One engine, what was asked of it, and what it gave."""

    def __init__(self, model: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.engine = make_engine(
            model,
            num_kv_blocks=self.rng.choice([12, 20, 60]),
            max_num_batched_tokens=self.rng.choice([7, 32, 256]),
            max_num_seqs=self.rng.choice([2, 8, 64]),
            enable_prefix_caching=seed % 3 != 0,
        )
        self.collector = Collector(self.engine)
        self.asked: dict[int, tuple[Tokens, Any]] = {}
        self.aborted: set[int] = set()

    def live(self, num_actions: int) -> None:
        actions = [self.arrive] * 3 + [self.fork] * 2
        actions += [self.abort, self.look, self.engine.reset_prefix_cache]
        self.arrive()
        for _ in range(num_actions):
            self.rng.choice(actions)()
            for _ in range(self.rng.randrange(3)):
                self.collector.step()
        self.collector.run()
        assert self.engine.stats()["num_blocks_used"] == 0
        assert not self.collector.errors

    def random_prompt(self) -> Tokens:
        length = self.rng.randrange(1, 91)
        other = random_prompt(90, VOCAB, seed=self.rng.randrange(8))
        return (self.rng.choice([SHARED, []]) + other)[:length]

    def random_params(self, n: int = 1) -> Any:
        if n == 1 and self.rng.random() < 0.5:
            return greedy(self.rng.randrange(1, 25))
        return sampled(self.rng.randrange(1, 25), seed=self.rng.randrange(3), n=n)

    def arrive(self) -> None:
        asked = self.random_prompt(), self.random_params(self.rng.choice([1, 1, 1, 2, 3]))
        self.asked[self.engine.add_request(*asked, self.rng.choice(["", "", "salt"]))] = asked

    def fork(self) -> None:
        parent = self.rng.choice(list(self.asked))
        tokens = self.collector.tokens.get((parent, 0))
        if tokens and parent not in self.aborted and (parent, 0) not in self.collector.reasons:
            asked = self.asked[parent][0] + tokens, self.random_params()
            self.asked[self.engine.fork(parent, 0, asked[1])] = asked

    def abort(self) -> None:
        request = self.rng.choice(list(self.asked))
        if self.engine.abort(request):
            self.aborted.add(request)

    def look(self) -> None:
        try:
            assert np.isfinite(self.engine.compute_logits(self.random_prompt())).all()
        except OutOfMemoryError:
            assert self.engine.stats()["num_blocks_used"] > 0


@pytest.mark.parametrize("seed", range(12))
def test_a_random_life(seed: int, tiny_model: Callable[..., Path]) -> None:
    model = tiny_model("llama")
    life = Life(model, seed)
    life.live(150)

    quiet = make_engine(model, enable_prefix_caching=False, num_kv_blocks=512)
    alone = Collector(quiet)
    twins = {request: quiet.add_request(*asked) for request, asked in life.asked.items()}
    alone.run()
    for (request, sample), tokens in life.collector.tokens.items():
        expected = alone.tokens[(twins[request], sample)]
        whole = (request, sample) in life.collector.reasons
        assert tokens == (expected if whole else expected[: len(tokens)]), (request, sample)
        assert whole or request in life.aborted
