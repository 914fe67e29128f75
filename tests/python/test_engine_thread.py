"""EngineThread and OutputQueue of the extension module: who waits, for what, and how it ends."""

from __future__ import annotations

import functools
import gc
import math
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from device_under_test import DEVICE
from engine_driver import generate, greedy, make_engine, random_prompt, sampled
from octavo import _core
from octavo.errors import OctavoError, ValidationError

VOCAB = 320


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("llama", tokenizer=True)


@pytest.fixture
def engine(model: Path) -> _core.Engine:
    return make_engine(model)


@pytest.fixture
def thread(engine: _core.Engine) -> Iterator[_core.EngineThread]:
    thread = _core.EngineThread(engine)
    yield thread
    thread.close()


def collect(queue: _core.OutputQueue, count: int) -> dict[int, list[int]]:
    """The tokens of sample 0, by request, until ``count`` requests have finished."""
    tokens: dict[int, list[int]] = {}
    while count > 0:
        for output in queue.take():
            if output.sample_index == 0:
                tokens.setdefault(output.request_id, []).extend(output.new_token_ids)
            count -= output.request_finished
    return tokens


def run_script(model: Path, script: str) -> subprocess.CompletedProcess[str]:
    head = f"""
        import gc, os, signal, sys, threading
        from octavo import _core
        engine = _core.Engine(
            model={str(model)!r}, device={DEVICE!r}, dtype="float32", num_kv_blocks=64)
        thread = _core.EngineThread(engine)
        queue = _core.OutputQueue()
        endless = _core.SamplingParams(temperature=0.0, ignore_eos=True)
        signal.alarm(120)
    """
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(head) + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
    )


def interrupted_after(seconds: float, call: Callable[[], object]) -> None:
    main = threading.main_thread().ident or 0
    timer = threading.Timer(seconds, functools.partial(signal.pthread_kill, main, signal.SIGINT))

    def start_and_call() -> None:
        timer.start()
        call()

    with pytest.raises(KeyboardInterrupt):
        start_and_call()
    timer.join()


class Busy:
    """Keeps the engine's thread from its steps, as a long one does."""

    def __init__(self, thread: _core.EngineThread) -> None:
        self._begun, self._end = threading.Event(), threading.Event()
        self._caller = threading.Thread(
            target=lambda: thread.run_between_steps(self._wait), daemon=True
        )

    def _wait(self) -> None:
        self._begun.set()
        self._end.wait()

    def __enter__(self) -> Busy:
        self._caller.start()
        self._begun.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end.set()
        self._caller.join()


# Requests.


def test_each_queue_gets_its_own(model: Path, thread: _core.EngineThread) -> None:
    prompts = [random_prompt(5 + 3 * i, VOCAB, seed=i) for i in range(6)]
    expected = generate(make_engine(model), prompts, greedy(12))
    queues = [_core.OutputQueue(), _core.OutputQueue()]
    ids = [thread.add_request(p, greedy(12), queues[i % 2]) for i, p in enumerate(prompts)]
    assert ids == list(range(6))
    for i, queue in enumerate(queues):
        assert collect(queue, 3) == {ids[j]: expected[j] for j in range(i, 6, 2)}
        assert queue.take(0) == []
    assert thread.num_unfinished() == 0


def test_add_request_says_which_ids_are_owned(thread: _core.EngineThread) -> None:
    owned: set[int] = set()
    queue = _core.OutputQueue()
    first = thread.add_request([1], greedy(1), queue, owned=owned)
    second = thread.add_request([1], greedy(1), queue, "salt", owned)
    assert owned == {first, second}
    with pytest.raises(ValidationError, match="empty"):
        thread.add_request([], greedy(1), queue, "", owned)
    with pytest.raises(ValidationError):
        thread.add_request([VOCAB], greedy(1), queue, "", owned)
    with pytest.raises(TypeError):
        thread.add_request([1], greedy(1), None)  # type: ignore[arg-type]
    assert owned == {first, second}
    assert sorted(collect(queue, 2)) == [first, second]


def test_the_time_of_submission(thread: _core.EngineThread) -> None:
    queue = _core.OutputQueue()
    thread.pause()
    before = time.monotonic()
    thread.add_request([1], greedy(1), queue)
    after = time.monotonic()
    thread.resume()
    (output,) = queue.take()
    queued, scheduled, first_token, last_token, _ = output.times
    assert before <= queued <= after <= scheduled <= first_token <= last_token <= time.monotonic()


def test_aborts_are_silent_and_give_every_block_back(
    engine: _core.Engine, thread: _core.EngineThread
) -> None:
    queue = _core.OutputQueue()
    long = thread.add_request([1, 2], sampled(400, seed=1, n=2), queue)
    while {output.sample_index for output in queue.take()} != {0, 1}:
        pass
    thread.abort_sample(long, 1)
    queue.take(0)
    assert {output.sample_index for output in queue.take()} == {0}
    thread.abort(long)
    thread.abort(long)
    thread.abort(12345)
    queue.take(0)
    thread.run_between_steps(lambda: None)
    assert queue.take(0) == []
    assert not engine.has_unfinished_requests()
    assert thread.stats()["num_blocks_used"] == 0
    assert thread.stats() == engine.stats()


def test_paused_requests_wait(thread: _core.EngineThread) -> None:
    queue = _core.OutputQueue()
    assert not thread.paused
    thread.pause()
    assert thread.paused
    thread.add_request([1], greedy(3), queue)
    thread.run_between_steps(lambda: None)
    assert queue.take(0.05) == []
    assert (thread.num_unfinished(), thread.stats()["num_steps"]) == (1, 0)
    thread.resume()
    assert len(collect(queue, 1)[0]) == 3


def test_sleep_goes_through_the_thread(engine: _core.Engine, thread: _core.EngineThread) -> None:
    queue = _core.OutputQueue()
    thread.run_between_steps(lambda: engine.sleep(1))
    thread.add_request([1], greedy(3), queue)
    thread.run_between_steps(lambda: None)
    assert (queue.take(0.05), thread.num_unfinished()) == ([], 1)
    thread.run_between_steps(engine.wake_up)
    assert len(collect(queue, 1)[0]) == 3


# Waiting.


@pytest.mark.parametrize("timeout", [0, 0.001, 0.12, -1, -math.inf, math.nan])
def test_take_gives_up(timeout: float) -> None:
    before = time.monotonic()
    assert _core.OutputQueue().take(timeout) == []
    if timeout > 0:
        assert time.monotonic() - before >= timeout


@pytest.mark.parametrize("timeout", [None, 1e9, 1e300, math.inf])
def test_take_waits_for_the_first(thread: _core.EngineThread, timeout: float | None) -> None:
    queue = _core.OutputQueue()
    timer = threading.Timer(0.12, lambda: thread.add_request([1], greedy(1), queue))
    timer.start()
    assert len(queue.take(timeout)) == 1
    timer.join()


def test_the_descriptor_wakes_an_event_loop(thread: _core.EngineThread) -> None:
    queue = _core.OutputQueue()
    assert select.select([queue.fd], [], [], 0) == ([], [], [])
    thread.add_request([1], greedy(30), queue)
    tokens = 0
    while tokens < 30:
        select.select([queue.fd], [], [])
        outputs = queue.take(0)
        assert outputs
        tokens += len(outputs)
    assert select.select([queue.fd], [], [], 0) == ([], [], [])


def test_python_runs_while_others_wait(thread: _core.EngineThread) -> None:
    queue = _core.OutputQueue()
    waiters = [
        threading.Thread(target=queue.take),
        threading.Thread(target=lambda: thread.run_between_steps(lambda: None)),
    ]
    with Busy(thread):
        for waiter in waiters:
            waiter.start()
        thread.add_request([1], greedy(1), queue)  # this thread runs, while two wait
        time.sleep(0.1)
        assert all(waiter.is_alive() for waiter in waiters)
    for waiter in waiters:
        waiter.join()


def test_an_interrupt_ends_take_during_a_step(thread: _core.EngineThread) -> None:
    queue = _core.OutputQueue()
    with Busy(thread):
        request = thread.add_request([1], greedy(2), queue)
        for timeout in (None, 3600.0):
            interrupted_after(0.02, functools.partial(queue.take, timeout))
        thread.abort(request)  # nor does this wait
        assert thread.num_unfinished() == 0


def test_interrupts_at_any_moment_lose_no_request(
    engine: _core.Engine, thread: _core.EngineThread
) -> None:
    queue = _core.OutputQueue()
    owned: set[int] = set()

    def work() -> None:
        while True:
            thread.add_request(random_prompt(10, VOCAB, seed=1), greedy(5), queue, "", owned)
            for output in queue.take():
                if output.request_finished:
                    owned.discard(output.request_id)

    for i in range(40):
        interrupted_after(0.0007 * i, work)
        for request in owned:
            thread.abort(request)
        owned.clear()
        assert thread.num_unfinished() == 0
    thread.run_between_steps(lambda: None)
    assert thread.stats()["num_blocks_used"] == 0


def test_functions_run_between_steps(engine: _core.Engine, thread: _core.EngineThread) -> None:
    seen: list[object] = []

    def look() -> None:
        seen.append(threading.get_ident())
        seen.append(engine.stats()["num_running"])
        for call in (lambda: thread.run_between_steps(print), thread.close):
            with pytest.raises(OctavoError, match="a thread of the engine"):
                call()

    thread.run_between_steps(look)
    assert len(seen) == 2
    assert seen[0] != threading.get_ident()
    for kind in (ZeroDivisionError, KeyboardInterrupt, SystemExit):

        def fail(kind: type[BaseException] = kind) -> None:
            raise kind("mine")

        with pytest.raises(kind, match="mine"):
            thread.run_between_steps(fail)
    with pytest.raises(ValidationError):
        thread.run_between_steps(lambda: engine.add_request([], greedy(1)))
    with pytest.raises(TypeError):
        thread.run_between_steps(3)  # type: ignore[arg-type]


# The end.


def test_close_ends_what_is_in_flight(engine: _core.Engine) -> None:
    references = sys.getrefcount(engine)
    thread = _core.EngineThread(engine)
    assert sys.getrefcount(engine) > references
    queue = _core.OutputQueue()
    request = thread.add_request([1], greedy(500), queue)
    errors: list[OctavoError] = []

    def call_again_and_again() -> None:
        try:
            while True:
                thread.run_between_steps(lambda: None)
        except OctavoError as error:
            errors.append(error)

    caller = threading.Thread(target=call_again_and_again)
    caller.start()
    queue.take()
    thread.close()
    caller.join()
    assert "closed" in str(errors[0])
    assert sys.getrefcount(engine) == references
    last = queue.take()[-1]
    assert (last.request_id, last.finish_reason, last.request_finished) == (request, "abort", True)
    assert "closed" in last.error
    assert engine.stats()["num_blocks_used"] == 0
    for call in (
        lambda: thread.add_request([1], greedy(1), queue),
        lambda: thread.abort(request),
        lambda: thread.abort_sample(request, 0),
        lambda: thread.run_between_steps(print),
        lambda: thread.paused,
        thread.pause,
        thread.resume,
        thread.num_unfinished,
        thread.stats,
    ):
        with pytest.raises(OctavoError, match="closed"):
            call()
    thread.close()
    # The engine may have another thread now.
    again = _core.EngineThread(engine)
    again.add_request([1], greedy(2), queue)
    assert len(collect(queue, 1)) == 1
    again.close()


def test_fifty_lives_leave_no_thread(engine: _core.Engine) -> None:
    def tasks() -> int:
        return len(os.listdir("/proc/self/task"))

    queue = _core.OutputQueue()
    before = tasks()
    references = sys.getrefcount(engine)
    for _ in range(50):
        thread = _core.EngineThread(engine)
        for _ in range(3):
            thread.add_request([1, 2, 3], greedy(400), queue)
        del thread
    gc.collect()
    assert tasks() <= before
    assert sys.getrefcount(engine) == references
    assert not engine.has_unfinished_requests()


@pytest.mark.parametrize("num_requests", [1, 8])
def test_a_processor_may_collect_the_thread_that_runs_it(model: Path, num_requests: int) -> None:
    """Also on one of the pool's threads, as with many requests."""
    engine = make_engine(model, num_threads=2)
    references = sys.getrefcount(engine)
    collected = threading.Event()

    def process(token_ids: object, logits: object) -> None:
        gc.collect()
        collected.set()

    queue = _core.OutputQueue()
    thread = _core.EngineThread(engine)
    thread.pause()
    for _ in range(num_requests):
        thread.add_request([1], greedy(400, logits_processors=[process]), queue)
    cycle: list[object] = [thread]
    cycle.append(cycle)
    gc.disable()
    try:
        thread.resume()
        del thread, cycle
        collected.wait()
    finally:
        gc.enable()
    finished = 0
    while finished < num_requests:
        for output in queue.take():
            if output.request_finished:
                finished += 1
                assert output.finish_reason == "abort"
    while sys.getrefcount(engine) != references:  # somebody else waits for the thread's end
        time.sleep(0.001)
    assert not engine.has_unfinished_requests()


LEFT_BEHIND = {
    "in flight": "",
    "closed": "thread.close()",
    "deleted": "del engine, thread, queue",
    "paused": "thread.pause()",
    "a cycle": "cycle = [thread, engine]; cycle.append(cycle); del thread, engine, cycle",
    "a daemon that takes": """
        def take(queue):
            while True:
                queue.take()
        threading.Thread(target=take, args=(queue,), daemon=True).start()
        threading.Thread(target=take, args=(_core.OutputQueue(),), daemon=True).start()
    """,
    "a daemon that calls": """
        def call():
            while True:
                thread.run_between_steps(lambda: None)
        threading.Thread(target=call, daemon=True).start()
    """,
    "a daemon that submits": """
        def submit():
            while True:
                thread.abort(thread.add_request([1], endless, queue))
        threading.Thread(target=submit, daemon=True).start()
    """,
    "an exception": "raise SystemExit(0)",
}


@pytest.mark.parametrize("left", LEFT_BEHIND)
def test_the_interpreter_ends_cleanly(model: Path, left: str) -> None:
    """Without close(): neither a hang nor a crash nor a message."""
    script = f"""
print("begun", flush=True)
for _ in range(8):
    thread.add_request([1, 2, 3], endless, queue)
queue.take()
{textwrap.dedent(LEFT_BEHIND[left])}
"""
    for _ in range(3):
        result = run_script(model, script)
        assert (result.returncode, result.stdout, result.stderr) == (0, "begun\n", "")


def test_the_interpreter_ends_among_calls(model: Path) -> None:
    """Daemon threads that go on to call to the very end, whatever is raised. Python kills them in
    the end, which no C++ must see, and leaves their frames behind, with what these refer to."""
    script = """
import time
def call(*functions):
    while True:
        for function in functions:
            try:
                function()
            except BaseException:
                pass
calls = [thread.stats, lambda: thread.abort(1), lambda: queue.take(0)]
for functions in (calls, [engine.stats, engine.has_vocabulary], [_core.OutputQueue().take]):
    threading.Thread(target=call, args=functions, daemon=True).start()
time.sleep(0.01)
"""
    for _ in range(3):
        result = run_script(model, script)
        assert result.returncode == 0, result.stderr


def test_a_forked_child(model: Path) -> None:
    script = """
request = thread.add_request([1, 2, 3], endless, queue)
queue.take()
waiting = threading.Thread(target=lambda: thread.run_between_steps(lambda: None))
child = os.fork()
if child == 0:
    signal.alarm(60)
    for call in (
        lambda: thread.add_request([1], endless, queue),
        lambda: thread.abort(request),
        lambda: thread.abort_sample(request, 0),
        lambda: thread.run_between_steps(print),
        lambda: thread.paused,
        thread.pause,
        thread.resume,
        thread.num_unfinished,
        thread.stats,
        lambda: queue.take(0),
        lambda: queue.fd,
    ):
        try:
            call()
        except _core.OctavoError as error:
            assert "fork" in str(error), error
        else:
            os._exit(3)
    thread.close()
    mine = _core.OutputQueue()
    assert mine.take(0) == []
    del thread, queue, mine
    raise SystemExit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
thread.abort(request)
queue.take(0)
thread.add_request([1], _core.SamplingParams(max_tokens=2, ignore_eos=True), queue)
while not queue.take()[-1].request_finished:
    pass
print("parent goes on")
"""
    result = run_script(model, script)
    assert (result.returncode, result.stdout) == (0, "parent goes on\n"), result.stderr
