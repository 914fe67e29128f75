"""AsyncLLM: a generator for each request, cancelling, several loops, none of which is held up."""

import asyncio
import random
import threading
import time

import fake_core
import pytest
from fake_core import FakeEngine
from fake_llm import EOS, TEMPLATE, engine_saying, generate, maker, save_model, small_backend
from octavo import (
    AsyncEngineArgs,
    AsyncLLM,
    OctavoError,
    SamplingParams,
    ValidationError,
)

CUMULATIVE, DELTA, FINAL_ONLY = range(3)


@pytest.fixture(scope="module")
def backend():
    return small_backend()


@pytest.fixture
def model(tmp_path, backend):
    return save_model(backend, tmp_path)


@pytest.fixture
def make(monkeypatch, model, backend):
    """make(*texts) -> an AsyncLLM that says these texts, and its engine as .fake."""

    def make(*texts, engine=None, **options):
        fake = engine or engine_saying(backend, *(texts or ("Hello",)))
        fake.threaded = True
        fake_core.use(monkeypatch, fake)
        llm = AsyncLLM(str(model), **options)
        llm.fake = fake
        return llm

    return make


@pytest.fixture
def make_llm(monkeypatch, model, backend):
    return maker(monkeypatch, model, backend)


def slow(engine):
    time.sleep(0.001)


def echo():
    return FakeEngine(reply=lambda p, s, i: EOS if i >= p[0] % 13 else p[0])


def endless(**options):
    engine = FakeEngine(reply=lambda p, s, i: 50, before_step=slow, **options)
    engine.info.max_model_len = 10**9
    return engine


ENDLESS = SamplingParams(max_tokens=10**8, output_kind=DELTA, detokenize=False)


async def all_of(llm, prompt, params=None, **options):
    return [output async for output in llm.generate(prompt, params, **options)]


def check_clean(llm):
    assert not llm.fake.live
    assert not llm._core.in_flight


TEXT = "Hello, wörld 🙂 and </answ some more"


@pytest.mark.parametrize("stop", [None, "</answer>", "some"])
@pytest.mark.parametrize("tokens_per_step", [1, 3])
def test_the_kinds_of_output_agree(make, make_llm, backend, stop, tokens_per_step):
    texts = (TEXT, "short")
    options = dict(n=2, max_tokens=60, stop=stop, logprobs=1)
    engine = engine_saying(backend, *texts, tokens_per_step=tokens_per_step)
    (whole,) = generate(make_llm(engine=engine), "x", SamplingParams(**options))
    llm = make(engine=engine_saying(backend, *texts, tokens_per_step=tokens_per_step))

    async def main():
        kinds = [SamplingParams(**options, output_kind=kind) for kind in range(3)]
        return await asyncio.gather(*(all_of(llm, "x", params) for params in kinds))

    cumulative, delta, (final,) = asyncio.run(main())
    assert final.outputs == whole.outputs
    for expected in whole.outputs:
        mine = [o.outputs[0] for o in cumulative if o.outputs[0].index == expected.index]
        assert mine[-1] == expected
        assert all(expected.text.startswith(sample.text) for sample in mine)
        mine = [o.outputs[0] for o in delta if o.outputs[0].index == expected.index]
        assert "".join(sample.text for sample in mine) == expected.text
        assert [i for sample in mine for i in sample.token_ids] == expected.token_ids
        assert [position for sample in mine for position in sample.logprobs] == expected.logprobs
        assert mine[-1].stop_reason == expected.stop_reason
    for outputs in (cumulative, delta):
        assert [o.finished for o in outputs] == [False] * (len(outputs) - 1) + [True]
    check_clean(llm)


def test_fifty_at_once(make):
    llm = make(engine=echo())

    async def main():
        params = SamplingParams(max_tokens=50, output_kind=FINAL_ONLY)
        return await asyncio.gather(*(all_of(llm, [20 + i], params) for i in range(50)))

    for i, (output,) in enumerate(asyncio.run(main())):
        assert output.outputs[0].token_ids == [20 + i] * ((20 + i) % 13) + [EOS]
    check_clean(llm)


def test_a_slow_consumer_gets_what_it_missed_at_once(make):
    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50))

    async def main():
        counts = []
        params = SamplingParams(max_tokens=30, output_kind=DELTA)
        async for output in llm.generate("x", params):
            counts.append(len(output.outputs[0].token_ids))
            while llm.fake.live:
                await asyncio.sleep(0.001)
        return counts

    counts = asyncio.run(main())
    assert sum(counts) == 30
    assert len(counts) <= 3


@pytest.mark.parametrize("how", ["cancel", "break", "aclose", "exception"])
def test_leaving_early_aborts(make, how):
    llm = make(engine=endless())

    async def consume():
        outputs = llm.generate("x", ENDLESS)
        count = 0
        async for _ in outputs:
            count += 1
            if count == 3 and how == "break":
                break
            if count == 3 and how == "aclose":
                await outputs.aclose()
            if count == 3 and how == "exception":
                raise ZeroDivisionError

    async def main():
        task = asyncio.ensure_future(consume())
        if how == "cancel":
            while not llm.fake.live:
                await asyncio.sleep(0.001)
            task.cancel()
        result = (await asyncio.gather(task, return_exceptions=True))[0]
        assert isinstance(
            result, {"cancel": asyncio.CancelledError, "exception": ZeroDivisionError}.get(
                how, type(None))
        )  # fmt: skip
        del task, result  # whose traceback holds the generator
        for _ in range(3):  # a generator that was left is closed in the loop's next turn
            await asyncio.sleep(0)
        check_clean(llm)

    asyncio.run(main())


def test_abort_by_id(make):
    llm = make(engine=endless())

    async def main():
        task = asyncio.ensure_future(all_of(llm, "x", ENDLESS, request_id="mine"))
        while not llm.fake.live:
            await asyncio.sleep(0.001)
        await llm.abort("unknown")
        await llm.abort("mine")
        outputs = await task
        assert outputs[-1].outputs[0].finish_reason == "abort"
        assert outputs[-1].finished
        assert {o.request_id for o in outputs} == {"mine"}
        check_clean(llm)

    asyncio.run(main())


def test_request_ids(make):
    llm = make(engine=endless())

    async def main():
        outputs = llm.generate("x", ENDLESS, "1")
        await anext_(outputs)
        with pytest.raises(ValidationError, match="request_id '1' is in flight"):
            await all_of(llm, "y", ENDLESS, request_id="1")
        others = [llm.generate("x", ENDLESS) for _ in range(2)]
        ids = [(await anext_(other)).request_id for other in others]
        assert ids == ["0", "2"]  # "1" is taken
        for each in [outputs, *others]:
            await each.aclose()
        again = llm.generate("x", ENDLESS, "1")
        await anext_(again)
        await again.aclose()

    asyncio.run(main())


async def anext_(outputs):
    return await outputs.__anext__()


def test_refused_requests(make):
    llm = make()

    async def main():
        with pytest.raises(ValidationError, match="cannot be empty"):
            await all_of(llm, "")
        with pytest.raises(ValidationError, match="can never fit"):
            await all_of(llm, [999])
        with pytest.raises(ValidationError, match="out-of-vocab"):
            await all_of(llm, "x", SamplingParams(stop_token_ids=[5000]))
        with pytest.raises(TypeError, match="params must be"):
            await all_of(llm, "x", "greedy")
        with pytest.raises(TypeError, match="Prompt should be"):
            await all_of(llm, 5)
        assert (await all_of(llm, "x"))[-1].outputs[0].text == "Hello"

    asyncio.run(main())
    check_clean(llm)


def test_an_error_while_it_runs_is_a_result(make):
    llm = make(engine=FakeEngine(failing="NaN in the logits"))
    with pytest.warns(UserWarning, match="failed: NaN"):
        (output,) = asyncio.run(all_of(llm, [666]))
    assert output.outputs[0].finish_reason == "error"


def test_close_ends_waiting_tasks(make):
    llm = make(engine=endless())

    async def main():
        tasks = [asyncio.ensure_future(all_of(llm, "x", ENDLESS)) for _ in range(3)]
        while len(llm.fake.live) < 3:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(llm.close)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, OctavoError)
            assert "closed while it was generating" in str(result)
        with pytest.raises(OctavoError, match="closed"):
            await all_of(llm, "x")

    asyncio.run(main())
    assert "closed" in repr(llm)


def test_with_and_engine_args(make, model):
    make()

    async def main():
        async with AsyncLLM.from_engine_args(AsyncEngineArgs(str(model))) as llm:
            outputs = await all_of(llm, "x", SamplingParams(output_kind=FINAL_ONLY))
            assert outputs[0].outputs[0].text == "Hello"
            assert llm.get_tokenizer().eos_token == "</s>"
            assert llm.stats()["num_running"] == 0
            assert await llm.reset_prefix_cache()
        llm.shutdown()
        with pytest.raises(OctavoError):
            await all_of(llm, "x")

    asyncio.run(main())


def test_several_loops_share_one_model(make):
    llm = make(engine=echo())
    results = {}

    def work(i):
        async def main():
            params = SamplingParams(max_tokens=50, output_kind=FINAL_ONLY)
            each = (all_of(llm, [20 + i * 20 + j], params) for j in range(20))
            return await asyncio.gather(*each)

        results[i] = asyncio.run(main())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, outputs in results.items():
        for j, (output,) in enumerate(outputs):
            token = 20 + i * 20 + j
            assert output.outputs[0].token_ids == [token] * (token % 13) + [EOS]
    check_clean(llm)
    asyncio.run(all_of(llm, "x"))  # forgets the loops that are closed
    assert len(llm._loops) == 1


def test_cancelling_at_random_moments(make):
    rng = random.Random(11)
    llm = make(engine=endless())

    async def main():
        for _ in range(60):
            tasks = [asyncio.ensure_future(all_of(llm, "x", ENDLESS)) for _ in range(5)]
            await asyncio.sleep(rng.random() * 0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert not llm._core.in_flight
        while llm.fake.live:
            await asyncio.sleep(0.001)

    asyncio.run(main())
    check_clean(llm)


def test_other_tasks_run_while_many_outputs_are_read(make):
    """10,000 outputs that came at once are not made text of in one go."""
    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50))
    llm._core.thread().pause()

    async def main():
        # With a stop string, which never comes, each token is an output.
        params = SamplingParams(max_tokens=50, output_kind=FINAL_ONLY, stop=["\0never"])
        tasks = [asyncio.ensure_future(all_of(llm, [5], params)) for _ in range(200)]
        while len(llm.fake.live) < 200:
            await asyncio.sleep(0)
        turns = 0
        llm._core.thread().resume()
        while llm.fake.live:
            time.sleep(0.001)  # the loop is busy with something else
        while not all(task.done() for task in tasks):
            turns += 1
            await asyncio.sleep(0)
        return turns, [await task for task in tasks]

    turns, results = asyncio.run(main())
    assert turns > 10_000 // 256
    assert all(len(output.outputs[0].token_ids) == 50 for (output,) in results)


HI = [{"role": "user", "content": "Hi"}]


def test_chat(make, make_llm):
    """The prompt and the answer of LLM.chat; template and options as there."""
    chat = [{"role": "system", "content": "Brief."}, *HI]
    params = SamplingParams(max_tokens=20, output_kind=FINAL_ONLY)
    with make_llm("Hello") as offline:
        (expected,) = offline.chat(chat, params, use_tqdm=False)
    llm = make("Hello", chat_template="{% for m in messages %}{{ m.content }}|{% endfor %}")

    async def main():
        async def only(messages, **options):
            (output,) = [o async for o in llm.chat(messages, params, **options)]
            return output

        own = await only(chat)
        assert own.prompt == "Brief.|Hi|"
        given = await only([chat], chat_template=TEMPLATE, request_id="mine")
        assert given.request_id == "mine"
        assert (given.prompt, given.outputs) == (expected.prompt, expected.outputs)
        options = {
            "chat_template": "{{ style }}{{ tools | length }}{{ messages[-1].content }}",
            "add_generation_prompt": False,
            "continue_final_message": True,
            "tools": [{}],
            "chat_template_kwargs": {"style": "s"},
        }
        assert (await only(HI, **options)).prompt == "s1Hi"
        deltas = SamplingParams(max_tokens=20, output_kind=DELTA)
        outputs = [o async for o in llm.chat(HI, deltas)]
        assert "".join(o.outputs[0].text for o in outputs) == "Hello"
        for messages, options, error in (
            ([HI, HI], {}, "one conversation"),
            ([], {}, "one conversation"),
            (HI, {"chat_template": "{{ raise_exception('no') }}"}, "chat template: no"),
            (HI, {"chat_template_content_format": "x"}, "chat_template_content_format"),
        ):
            with pytest.raises(ValidationError, match=error):
                await only(messages, **options)
        with pytest.raises(TypeError, match="novel"):
            await only(HI, novel=1)

    asyncio.run(main())
    check_clean(llm)
    llm.close()
    with pytest.raises(OctavoError, match="closed"):
        asyncio.run(all_of_chat(llm, HI))


async def all_of_chat(llm, messages, params=None):
    return [output async for output in llm.chat(messages, params)]


def test_leaving_a_chat_aborts(make):
    llm = make(engine=endless())

    async def main():
        outputs = llm.chat(HI, ENDLESS)
        await anext(outputs)
        await outputs.aclose()
        check_clean(llm)
        task = asyncio.create_task(all_of_chat(llm, HI, ENDLESS))
        while not llm.fake.live:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        check_clean(llm)

    asyncio.run(main())


def test_a_template_does_not_hold_up_the_loop(make, monkeypatch):
    """It renders in another thread: the loop lets it go on."""
    llm = make("Hello")
    rendering, go_on = threading.Event(), threading.Event()
    render = llm._render_chat

    def held(*args):
        rendering.set()
        assert go_on.wait(60)
        return render(*args)

    monkeypatch.setattr(llm, "_render_chat", held)

    async def main():
        task = asyncio.create_task(all_of_chat(llm, HI))
        while not rendering.is_set():
            await asyncio.sleep(0.001)
        go_on.set()
        outputs = await task
        assert outputs[-1].outputs[0].text.startswith("Hello")

    asyncio.run(main())


def test_sleep(make):
    llm = make(engine=endless())

    async def main():
        task = asyncio.ensure_future(all_of(llm, "x", ENDLESS))
        while not llm.fake.live:
            await asyncio.sleep(0.001)
        await llm.sleep(1)
        assert await llm.is_sleeping()
        assert (await task)[-1].outputs[0].finish_reason == "abort"
        with pytest.raises(OctavoError, match="asleep"):
            await all_of(llm, "x")
        assert await llm.wake_up()
        assert (await all_of(llm, "x"))[-1].finished

    asyncio.run(main())
