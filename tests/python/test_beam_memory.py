"""The blocks of beam search: how many it takes at most, that all come back however it ends, and
that running out of them changes no result."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_core
import pytest
from beam_driver import FREQUENT, bits_of, make_llm, search_all
from engine_driver import Tokens, random_prompt
from octavo import LLM, BeamSearchParams, SamplingParams

pytestmark = pytest.mark.skipif(fake_core.FAKED, reason="needs the compiled engine")

VOCAB, BLOCK = 320, 16


@pytest.fixture(scope="module")
def path(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("llama", overrides={"eos_token_id": FREQUENT["llama"]}, tokenizer=True)


def prompt(i: int, length: int | None = None) -> Tokens:
    return random_prompt(5 + i % 40 if length is None else length, VOCAB, seed=70 + i)


def blocks(tokens: int) -> int:
    return -(-tokens // BLOCK)


def bound(prompt_tokens: int, width: int, tokens: int) -> int:
    return blocks(prompt_tokens) + width * (blocks(tokens) + 1)


def check_idle(llm: LLM) -> None:
    """The step in progress may still hold blocks; the engine's own figures wait for its end."""
    stats = llm._core.between_steps(lambda engine: engine.stats())
    assert stats["num_running"] == stats["num_waiting"] == stats["num_blocks_used"] == 0
    assert not llm._core.in_flight


SHAPES = [(1, 4, 40), (16, 8, 33), (17, 5, 50), (90, 4, 20), (33, 16, 17), (64, 3, 100)]


@pytest.mark.parametrize(("length", "width", "tokens"), SHAPES)
def test_blocks_that_a_search_takes(path: Path, length: int, width: int, tokens: int) -> None:
    """A request beside it looks at each step, and has blocks of its own."""
    used: list[int] = []

    def look(token_ids: Any, logits: Any) -> None:
        used.append(llm.stats()["num_blocks_used"])

    witness = SamplingParams(
        temperature=0, max_tokens=tokens + 10, ignore_eos=True, logits_processors=[look]
    )
    params = BeamSearchParams(width, tokens, ignore_eos=True)
    with make_llm(path, enable_prefix_caching=False) as llm:
        pair = [prompt(0, length), [1]]
        whole = [bits_of(o) for o in search_all(llm, pair, [params, witness])]
        check_idle(llm)
    most = bound(length, width, tokens)
    assert max(used) <= most + blocks(1 + tokens + 10)
    assert max(used) > blocks(length)
    # It fits where there is exactly that much.
    with make_llm(path, num_gpu_blocks_override=most) as llm:
        assert [bits_of(o) for o in search_all(llm, pair[:1], params)] == whole[:1]
        assert llm.stats()["num_preemptions"] == 0
        check_idle(llm)


@pytest.mark.parametrize("caching", [True, False])
def test_preemption_changes_no_beam(path: Path, caching: bool) -> None:
    params: list[Any] = [
        BeamSearchParams(2 + i % 4, 30, ignore_eos=i % 2 == 0, early_stopping=[None, False][i % 2])
        for i in range(6)
    ]
    params += [SamplingParams(seed=i, max_tokens=40, logprobs=1) for i in range(4)]
    prompts = [prompt(i) for i in range(10)]
    with make_llm(path) as llm:
        expected = [bits_of(output) for output in search_all(llm, prompts, params)]
        assert llm.stats()["num_preemptions"] == 0
    with make_llm(path, num_gpu_blocks_override=24, enable_prefix_caching=caching) as llm:
        llm.sleep(0)  # so that all of them begin together
        llm.enqueue(prompts, params, use_tqdm=False)
        llm.wake_up()
        outputs = llm.wait_for_completion(use_tqdm=False)
        assert [bits_of(output) for output in outputs] == expected
        assert llm.stats()["num_preemptions"] > 0
        check_idle(llm)


LONG = BeamSearchParams(6, 200, ignore_eos=True)
SHORT = BeamSearchParams(4, 8)


def test_aborts_and_closed_streams_at_random_moments(path: Path) -> None:
    draw = random.Random(3)
    with make_llm(path, max_model_len=256) as llm:
        (expected,) = search_all(llm, [prompt(7)], SHORT)

        def leave_stream() -> None:
            outputs = llm.stream([prompt(draw.randrange(50)) for _ in range(3)], LONG)
            for _ in range(draw.randrange(9)):
                next(outputs)
            outputs.close()

        def abort() -> None:
            prompts = [prompt(draw.randrange(50)) for _ in range(3)]
            ids = llm.enqueue(prompts, LONG, use_tqdm=False)
            time.sleep(draw.random() * 0.01)
            llm.abort(ids)
            outputs = llm.wait_for_completion(use_tqdm=False)
            assert {o.outputs[0].finish_reason for o in outputs} <= {"abort", "length"}

        for i in range(60):
            draw.choice([leave_stream, abort])()
            if i % 10 == 0:
                (witness,) = search_all(llm, [prompt(7)], SHORT)
                assert bits_of(witness) == bits_of(expected)
        check_idle(llm)


def test_interrupts(path: Path) -> None:
    draw = random.Random(5)
    with make_llm(path, max_model_len=256) as llm:
        (expected,) = search_all(llm, [prompt(7)], SHORT)

        def interrupt() -> None:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        def search_until_interrupted() -> None:
            timer = threading.Timer(draw.random() * 0.05, interrupt)
            timer.start()
            again = time.monotonic() + 2.0  # Python drops what is raised in a destructor
            try:
                while True:
                    llm.beam_search([prompt(i) for i in range(4)], LONG)
                    if time.monotonic() > again:
                        interrupt()
            finally:
                timer.join()

        for _ in range(20):
            with pytest.raises(KeyboardInterrupt):
                search_until_interrupted()
        check_idle(llm)
        (witness,) = search_all(llm, [prompt(7)], SHORT)
        assert bits_of(witness) == bits_of(expected)


def test_closing_while_it_searches(path: Path) -> None:
    llm = make_llm(path, max_model_len=256)
    outputs = llm.stream([prompt(1)], LONG)
    next(outputs)
    llm.close()
    with pytest.raises(Exception, match="closed"):
        list(outputs)
