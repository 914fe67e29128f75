"""Engines come and go, requests end at any moment, processes fork, threads share: nothing leaks,
hangs or mixes up (R5, R6, R22, R25)."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from device_under_test import DEVICE
from engine_driver import Collector, generate, greedy, make_engine, random_prompt, sampled
from octavo import LLM, SamplingParams, _core
from octavo.errors import OctavoError, ValidationError

VOCAB = 320


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("llama", tokenizer=True)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def num_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def assert_idle(engine: _core.Engine) -> None:
    stats = engine.stats()
    assert not engine.has_unfinished_requests()
    assert stats["num_running"] == stats["num_waiting"] == stats["num_blocks_used"] == 0


def wait_until_idle(llm: LLM) -> None:
    """What was aborted is gone when the step in progress has ended: here the engine's own figures
    wait for that."""
    stats = llm._core.between_steps(lambda engine: engine.stats())
    assert stats["num_running"] == stats["num_waiting"] == stats["num_blocks_used"] == 0


# Creation and destruction.


def live_once(path: Path, work_in_flight: bool) -> None:
    # 2,048 blocks of 8 KiB: a KV cache of 16 MiB that a leak could not hide.
    engine = make_engine(path, num_kv_blocks=2048)
    assert engine.model_info.kv_cache_bytes >= 16 << 20
    for i in range(4):
        engine.add_request(random_prompt(200, VOCAB, seed=i), greedy(20))
    while engine.has_unfinished_requests() and not work_in_flight:
        engine.step()
    engine.step()


@pytest.mark.parametrize("work_in_flight", [False, True])
def test_fifty_lives_return_their_memory(model: Path, work_in_flight: bool) -> None:
    for _ in range(5):
        live_once(model, work_in_flight)
    gc.collect()
    before, threads = resident_bytes(), num_threads()
    for _ in range(50):
        live_once(model, work_in_flight)
    gc.collect()
    grown = resident_bytes() - before
    # One engine left behind is 2 MiB of touched KV cache and weights at the least, fifty are 100.
    assert grown <= 8 << 20, f"resident memory grew by {grown / 2**20:.1f} MiB"
    assert num_threads() <= threads


def test_a_failed_creation_returns_its_memory(model: Path) -> None:
    def fail() -> None:
        with pytest.raises(OctavoError):
            make_engine(model, max_num_seqs=0)
        with pytest.raises(OctavoError):
            make_engine(model, num_kv_blocks=2048, kv_cache_dtype="int3")
        with pytest.raises(OctavoError):
            make_engine(model.parent / "nothing")

    for _ in range(20):
        fail()
    before, threads = resident_bytes(), num_threads()
    for _ in range(200):
        fail()
    gc.collect()
    assert resident_bytes() - before <= 4 << 20
    assert num_threads() <= threads


def make_llm(model: Path, **options: Any) -> LLM:
    return LLM(
        str(model),
        device=DEVICE,
        dtype="float32",
        max_model_len=256,
        num_gpu_blocks_override=128,
        **options,
    )


def leave_enqueued(llm: LLM) -> None:
    llm.enqueue(["a", "b"], use_tqdm=False)


def leave_iterators(llm: LLM) -> None:
    """Open ones, which outlive the LLM."""
    open_iterators = [llm.stream(["a", "b"]), llm.generate_iter(itertools.repeat("a"))]
    for each in open_iterators:
        next(each)


def leave_a_call_in_a_thread(llm: LLM) -> None:
    started = threading.Event()

    def work() -> None:
        started.set()
        with contextlib.suppress(OctavoError):
            llm.generate("a", SamplingParams(max_tokens=200, ignore_eos=True), use_tqdm=False)

    threading.Thread(target=work).start()
    started.wait()


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("leave", [leave_enqueued, leave_iterators, leave_a_call_in_a_thread])
def test_fifty_llms_with_work_in_flight(
    model: Path, leave: Callable[[LLM], None], close: bool
) -> None:
    tokenizers_threads = num_threads()

    def live() -> None:
        llm = make_llm(model)
        leave(llm)
        if close:
            llm.close()

    for _ in range(5):
        live()
    wait_for_threads(tokenizers_threads)
    before = resident_bytes()
    for _ in range(50):
        live()
    wait_for_threads(tokenizers_threads)
    grown = resident_bytes() - before
    assert grown <= 8 << 20, f"resident memory grew by {grown / 2**20:.1f} MiB"


def wait_for_threads(most: int) -> None:
    """Until no more threads are left than there were."""
    deadline = time.monotonic() + 60
    while num_threads() > most:
        assert time.monotonic() < deadline, num_threads()
        gc.collect()
        time.sleep(0.01)


def test_an_iterator_keeps_its_llm_at_work(model: Path) -> None:
    params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    outputs = list(make_llm(model).stream(["a"], params))
    assert sum(len(output.outputs[0].token_ids) for output in outputs) == 20


def test_close_and_with(model: Path) -> None:
    with make_llm(model) as llm:
        assert llm.generate("Hi", use_tqdm=False)[0].finished
    with pytest.raises((OctavoError, RuntimeError), match="clos"):
        llm.generate("Hi", use_tqdm=False)
    llm.close()  # again is allowed

    other = make_llm(model)
    threads = num_threads()
    other.close()
    assert num_threads() <= threads
    with pytest.raises((OctavoError, RuntimeError), match="clos"):
        other.generate("Hi", use_tqdm=False)


def test_with_lets_exceptions_pass(model: Path) -> None:
    with pytest.raises(ZeroDivisionError), make_llm(model):
        raise ZeroDivisionError


def test_the_interpreter_ends_cleanly_with_work_in_flight(model: Path) -> None:
    """Neither a crash nor a message at exit."""
    script = f"""
        from octavo import LLM, _core
        engine = _core.Engine(
            model={str(model)!r}, device={DEVICE!r}, dtype="float32", num_kv_blocks=64)
        params = _core.SamplingParams(temperature=0.0, max_tokens=100, ignore_eos=True)
        ids = [engine.add_request([1, 2, 3], params) for _ in range(5)]
        engine.step()
        llm = LLM({str(model)!r}, device={DEVICE!r}, dtype="float32", num_gpu_blocks_override=64)
        llm.generate("Hi", use_tqdm=False)
        llm.enqueue(["Hi"] * 20, use_tqdm=False)
        deltas = llm.stream(["Hi"] * 5)
        next(deltas)
        print("done")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


# Aborts and forks.


def test_two_thousand_aborts_at_random_moments(model: Path) -> None:
    engine = make_engine(model, num_kv_blocks=32, max_num_batched_tokens=64, max_num_seqs=16)
    rng = random.Random(5)
    in_flight: list[int] = []
    witness_prompt = random_prompt(20, VOCAB, seed=99)
    expected = generate(engine, [witness_prompt], greedy(10))[0]
    aborted = 0
    witnesses: list[int] = []
    collector = Collector(engine)
    while aborted < 2000:
        for _ in range(rng.randrange(4)):
            n = rng.choice([1, 1, 3])
            prompt = random_prompt(rng.randrange(1, 60), VOCAB, seed=rng.randrange(50))
            in_flight.append(engine.add_request(prompt, sampled(rng.randrange(1, 40), seed=1, n=n)))
        if aborted % 100 == 0:
            witnesses.append(engine.add_request(witness_prompt, greedy(10)))
            aborted += 1
        if rng.random() < 0.7:
            collector.step()
        while in_flight and (rng.random() < 0.6 or len(in_flight) > 30):
            engine.abort(in_flight.pop(rng.randrange(len(in_flight))))
            aborted += 1
    for request in in_flight:
        engine.abort(request)
        assert not engine.abort(request)
    collector.run()
    assert_idle(engine)
    assert [collector.tokens[(request, 0)] for request in witnesses] == [expected] * len(witnesses)
    assert engine.stats()["num_requests_aborted"] > 1000
    # Every block is free again: a request that needs all of them runs.
    whole = generate(engine, [random_prompt(400, VOCAB, seed=3)], greedy(112))[0]
    assert len(whole) == 112


def test_abort_before_the_first_step_and_twice(model: Path) -> None:
    engine = make_engine(model)
    request = engine.add_request([1, 2, 3], greedy(5))
    assert engine.abort(request)
    assert not engine.abort(request)
    assert engine.step() == []
    assert_idle(engine)


def test_abort_of_one_sample_leaves_the_others(model: Path) -> None:
    engine = make_engine(model)
    prompt = random_prompt(37, VOCAB, seed=8)
    whole = Collector(engine)
    request = engine.add_request(prompt, sampled(20, seed=4, n=3))
    whole.run()
    expected = [whole.tokens[(request, i)] for i in range(3)]
    for victim in range(3):
        collector = Collector(engine)
        request = engine.add_request(prompt, sampled(20, seed=4, n=3))
        for _ in range(5):
            collector.step()
        assert engine.abort_sample(request, victim)
        assert not engine.abort_sample(request, victim)
        collector.run()
        for i in range(3):
            got = collector.tokens[(request, i)]
            assert got == expected[i][: len(got)]
            assert (len(got) < 20) == (i == victim)
        assert_idle(engine)


@pytest.mark.parametrize("prompt_length", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("steps", [1, 3, 16, 17])
def test_a_fork_is_isolated(model: Path, prompt_length: int, steps: int) -> None:
    """Parent and child go on alone from shared blocks, as two requests that were never one."""
    prompt = random_prompt(prompt_length, VOCAB, seed=11)
    fresh = make_engine(model, enable_prefix_caching=False)
    parent_alone = generate(fresh, [prompt], greedy(40))[0]
    child_alone = generate(fresh, [prompt + parent_alone[:steps]], sampled(20, seed=7))[0]

    engine = make_engine(model)
    collector = Collector(engine)
    parent = engine.add_request(prompt, greedy(40))
    for _ in range(steps):
        collector.step()
    children = [engine.fork(parent, 0, sampled(20, seed=7)) for _ in range(2)]
    collector.run()
    assert collector.tokens[(parent, 0)] == parent_alone
    # A draw's position is that in the whole text, so the child draws as the fresh request does.
    for child in children:
        assert collector.tokens[(child, 0)] == child_alone
    assert_idle(engine)


def test_a_fork_outlives_its_parent_and_survives_preemption(model: Path) -> None:
    prompt = random_prompt(30, VOCAB, seed=12)
    alone = generate(make_engine(model, enable_prefix_caching=False), [prompt], greedy(41))[0]
    engine = make_engine(model, num_kv_blocks=7, max_num_batched_tokens=32)
    collector = Collector(engine)
    parent = engine.add_request(prompt, greedy(60))
    collector.step()
    children = [engine.fork(parent, 0, greedy(40)) for _ in range(3)]
    assert engine.abort(parent)
    collector.run()
    for child in children:
        assert collector.tokens[(child, 0)] == alone[1:]
    assert engine.stats()["num_preemptions"] > 0
    assert_idle(engine)


def test_a_fork_of_what_is_not_in_flight_is_refused(model: Path) -> None:
    engine = make_engine(model)
    request = engine.add_request([1, 2], greedy(2))
    for parent, sample in ((request, 1), (request, -1), (request + 1, 0)):
        with pytest.raises(ValidationError, match="in flight"):
            engine.fork(parent, sample, greedy(2))
    Collector(engine).run()
    with pytest.raises(ValidationError, match="in flight"):
        engine.fork(request, 0, greedy(2))
    assert_idle(engine)


# Processes and threads.


def test_a_forked_child_gets_an_error_and_no_hang(model: Path) -> None:
    """In a process of its own, so that a hang of the child is only this test's."""
    script = f"""
        import os, signal
        from octavo import LLM, SamplingParams
        from octavo.errors import OctavoError
        options = dict(device={DEVICE!r}, dtype="float32", num_gpu_blocks_override=64)
        llm = LLM({str(model)!r}, **options)
        greedy = SamplingParams(temperature=0, max_tokens=4)
        first = llm.generate("Hi", greedy, use_tqdm=False)[0].outputs[0].token_ids
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            try:
                llm.generate("Hi", greedy, use_tqdm=False)
            except OctavoError as error:
                assert "fork" in str(error), error
                del llm  # neither waits for threads that are not here
                mine = LLM({str(model)!r}, **options)
                again = mine.generate("Hi", greedy, use_tqdm=False)[0].outputs[0].token_ids
                assert again == first
                mine.close()
                raise SystemExit(0)
            raise SystemExit(3)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
        assert llm.generate("Hi", greedy, use_tqdm=False)[0].outputs[0].token_ids == first
        print("parent goes on")
    """
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "parent goes on\n", result.stderr
    assert result.returncode == 0


def test_a_forked_child_of_the_bare_engine(model: Path) -> None:
    script = f"""
        import os, signal
        from octavo import _core
        engine = _core.Engine(
            model={str(model)!r}, device={DEVICE!r}, dtype="float32", num_kv_blocks=64)
        params = _core.SamplingParams(temperature=0.0, max_tokens=8)
        request = engine.add_request([1, 2, 3], params)
        engine.step()
        if os.fork() == 0:
            signal.alarm(60)
            for call in (
                engine.step,
                engine.stats,
                engine.has_unfinished_requests,
                engine.reset_prefix_cache,
                lambda: engine.abort(request),
                lambda: engine.fork(request, 0, params),
                lambda: engine.add_request([1], params),
                lambda: engine.compute_logits([1]),
            ):
                try:
                    call()
                except _core.OctavoError as error:
                    assert "fork" in str(error), error
                else:
                    os._exit(3)
            del engine
            raise SystemExit(0)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        while engine.has_unfinished_requests():
            engine.step()
        print("parent goes on")
    """
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "parent goes on\n"), result.stderr


def test_close_ends_a_call_in_another_thread(model: Path) -> None:
    llm = make_llm(model)
    started = threading.Event()
    errors: list[Exception] = []

    def work() -> None:
        try:
            started.set()
            while True:
                llm.generate("Hi", SamplingParams(max_tokens=200, ignore_eos=True), use_tqdm=False)
        except OctavoError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    llm.close()
    thread.join()
    assert "clos" in str(errors[0])


def test_threads_share_one_llm(model: Path) -> None:
    prompts = [{"prompt_token_ids": random_prompt(5 + i, VOCAB, seed=i)} for i in range(24)]
    params = [
        SamplingParams(temperature=i % 2, seed=i, max_tokens=12, ignore_eos=True) for i in range(24)
    ]
    with make_llm(model) as llm:
        expected = [
            llm.generate(prompt, each, use_tqdm=False)[0].outputs[0].token_ids
            for prompt, each in zip(prompts, params, strict=True)
        ]

        def work(i: int) -> list[list[int]]:
            mine = range(i, 24, 6)
            outputs = llm.generate(
                [prompts[j] for j in mine], [params[j] for j in mine], use_tqdm=False
            )
            return [output.outputs[0].token_ids for output in outputs]

        for _ in range(3):
            with ThreadPoolExecutor(6) as pool:
                results = list(pool.map(work, range(6)))
            for i, tokens in enumerate(results):
                assert tokens == [expected[j] for j in range(i, 24, 6)]


def test_threads_share_one_engine(model: Path) -> None:
    """Adds, aborts and counters from other threads while one steps."""
    engine = make_engine(model, num_kv_blocks=64)
    stop = threading.Event()
    failures: list[BaseException] = []

    def disturb(seed: int) -> None:
        rng = random.Random(seed)
        try:
            while not stop.is_set():
                request = engine.add_request(
                    random_prompt(rng.randrange(1, 40), VOCAB, seed=seed), greedy(20)
                )
                assert engine.stats()["num_blocks_used"] <= 64
                engine.model_info.vocab_size  # noqa: B018
                assert engine.abort(request) in (True, False)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=disturb, args=(seed,)) for seed in range(3)]
    prompt = random_prompt(25, VOCAB, seed=1)
    expected = generate(make_engine(model), [prompt], greedy(60))[0]
    for thread in threads:
        thread.start()
    request = engine.add_request(prompt, greedy(60))
    tokens: list[int] = []
    while len(tokens) < 60:
        for output in engine.step():
            if output.request_id == request:
                tokens += output.new_token_ids
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert tokens == expected
    while engine.has_unfinished_requests():
        engine.step()
    assert_idle(engine)


def test_step_releases_the_gil(model: Path) -> None:
    """Python runs on while the engine computes: a thread counts during one long call."""
    engine = make_engine(model, num_threads=1, max_num_batched_tokens=512, num_kv_blocks=64)
    counted = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal counted
        while not stop.is_set():
            counted += 1

    thread = threading.Thread(target=count)
    thread.start()
    before = counted
    for i in range(5):
        engine.compute_logits(random_prompt(512, VOCAB, seed=i))
    during = counted - before
    stop.set()
    thread.join()
    assert during > 0


def test_an_interrupt_leaves_the_llm_clean(model: Path) -> None:
    with make_llm(model) as llm:
        # Short, so that interrupts fall between requests being added too.
        params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
        prompts = [{"prompt_token_ids": random_prompt(20 + i, VOCAB, seed=i)} for i in range(40)]
        expected = llm.generate(prompts[:2], params, use_tqdm=False)
        main = threading.main_thread()

        def generate_until_interrupted(timer: threading.Timer) -> None:
            timer.start()
            while True:
                llm.generate(prompts, params, use_tqdm=False)

        for i in range(40):
            interrupt = functools.partial(signal.pthread_kill, main.ident or 0, signal.SIGINT)
            timer = threading.Timer(0.001 * i, interrupt)
            with pytest.raises(KeyboardInterrupt):
                generate_until_interrupted(timer)
            timer.join()
            wait_until_idle(llm)
        again = llm.generate(prompts[:2], params, use_tqdm=False)
        assert [a.outputs[0].token_ids for a in again] == [e.outputs[0].token_ids for e in expected]
        # Only the two of this call came back, and nothing of the interrupted ones is left.
        assert len(again) == 2
