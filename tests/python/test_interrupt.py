"""Ctrl-C while an LLM works, on the compiled engine: it comes at once, also in the middle of a
step, and leaves nothing behind (R22)."""

from __future__ import annotations

import functools
import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_core
import pytest
from device_under_test import DEVICE
from octavo import LLM, OctavoError, SamplingParams

pytestmark = pytest.mark.skipif(fake_core.FAKED, reason="needs the compiled engine")

VOCAB = 320
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
LONG = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("llama", tokenizer=True)


@pytest.fixture
def llm(model: Path) -> Iterator[LLM]:
    with LLM(
        str(model), device=DEVICE, dtype="float32", max_model_len=256, num_gpu_blocks_override=256
    ) as llm:
        yield llm


def prompt(i: int) -> list[int]:
    draw = random.Random(i)
    return [draw.randrange(4, VOCAB) for _ in range(5 + i % 40)]


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def wait_until_idle(llm: LLM) -> None:
    """The step in progress may still hold blocks; the engine's own figures wait for its end."""
    stats = llm._core.between_steps(lambda engine: engine.stats())
    assert stats["num_running"] == stats["num_waiting"] == stats["num_blocks_used"] == 0
    assert not llm._core.in_flight
    assert not llm.llm_engine.has_unfinished_requests()


def ways_to_wait(llm: LLM, params: SamplingParams) -> dict[str, Callable[[], Any]]:
    prompts = [prompt(i) for i in range(4)]

    def enqueue_and_wait() -> None:
        llm.enqueue(prompts, params, use_tqdm=False)
        llm.wait_for_completion(use_tqdm=False)

    endless = itertools.cycle(prompts)
    return {
        "generate": lambda: llm.generate(prompts, params, use_tqdm=False),
        "stream": lambda: list(llm.stream(prompts, params)),
        "generate_iter": lambda: [None for _ in llm.generate_iter(endless, params)],
        "enqueue": enqueue_and_wait,
    }


@pytest.mark.parametrize("way", ["generate", "stream", "generate_iter", "enqueue"])
def test_an_interrupt_does_not_wait_for_the_step(llm: LLM, way: str) -> None:
    """The step goes on until the interrupt has arrived: were it waited for, this would hang."""
    in_step, go_on = threading.Event(), threading.Event()

    def hold(token_ids: Any, logits: Any) -> None:
        in_step.set()
        assert go_on.wait(60)

    def interrupt_in_step() -> None:
        in_step.wait()
        interrupt()

    params = SamplingParams(temperature=0, max_tokens=20, logits_processors=[hold])
    thread = threading.Thread(target=interrupt_in_step)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            ways_to_wait(llm, params)[way]()
        assert not go_on.is_set()
        assert not llm._core.in_flight
    finally:
        go_on.set()
        thread.join()
    wait_until_idle(llm)
    assert len(llm.generate([prompt(0)], GREEDY, use_tqdm=False)[0].outputs[0].token_ids) == 12


def test_interrupts_at_random_moments(llm: LLM) -> None:
    rng = random.Random(2)
    expected = llm.generate([prompt(1), prompt(2)], GREEDY, use_tqdm=False)
    ways = ways_to_wait(llm, LONG)

    def run_until_interrupted(way: Callable[[], Any]) -> None:
        timer = threading.Timer(rng.random() * 0.03, interrupt)
        timer.start()
        try:
            while True:
                way()
        finally:
            timer.join()

    for _ in range(100):
        with pytest.raises(KeyboardInterrupt):
            run_until_interrupted(ways[rng.choice(sorted(ways))])
    wait_until_idle(llm)
    again = llm.generate([prompt(1), prompt(2)], GREEDY, use_tqdm=False)
    assert [a.outputs[0].token_ids for a in again] == [e.outputs[0].token_ids for e in expected]
    assert llm.wait_for_completion(use_tqdm=False) == []


def test_aborts_and_closed_iterators_at_random_moments(llm: LLM) -> None:
    """500 of each kind of early end, with a witness whose tokens nothing may change."""
    rng = random.Random(4)
    (expected,) = llm.generate([prompt(7)], GREEDY, use_tqdm=False)
    stop = SamplingParams(temperature=1.0, seed=1, n=2, max_tokens=60, stop=["e", "1"])

    def leave_iterator() -> None:
        prompts = [prompt(rng.randrange(50)) for _ in range(5)]
        make = rng.choice(
            [
                functools.partial(llm.stream, prompts, rng.choice([LONG, stop])),
                functools.partial(llm.generate_iter, itertools.cycle(prompts), stop),
                functools.partial(
                    llm.generate_iter, itertools.cycle(prompts), LONG, max_in_flight=3
                ),
            ]
        )
        outputs = make()
        for _ in range(rng.randrange(6)):
            next(outputs, None)
        outputs.close()

    def abort_by_id() -> None:
        ids = llm.enqueue([prompt(rng.randrange(50)) for _ in range(5)], LONG, use_tqdm=False)
        time.sleep(rng.random() * 0.002)
        llm.abort(ids)
        outputs = llm.wait_for_completion(use_tqdm=False)
        assert {o.outputs[0].finish_reason for o in outputs} <= {"abort", "length"}

    for i in range(500):
        rng.choice([leave_iterator, abort_by_id])()
        if i % 100 == 0:
            (witness,) = llm.generate([prompt(7)], GREEDY, use_tqdm=False)
            assert witness.outputs[0].token_ids == expected.outputs[0].token_ids
    wait_until_idle(llm)


def test_closing_in_the_middle_of_a_step(model: Path) -> None:
    """A call in another thread ends with an error; close waits for the step."""
    llm = LLM(str(model), device=DEVICE, dtype="float32", num_gpu_blocks_override=64)
    in_step, errors = threading.Event(), []

    def hold(token_ids: Any, logits: Any) -> None:
        in_step.set()
        time.sleep(0.05)

    def work() -> None:
        params = SamplingParams(temperature=0, max_tokens=50, logits_processors=[hold])
        try:
            llm.generate([prompt(1)], params, use_tqdm=False)
        except OctavoError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    in_step.wait()
    llm.close()
    thread.join()
    assert errors == ["LLM: it was closed while it was generating"]
