"""LLM.stream: deltas that add up, intervals, several samples and prompts, early ends."""

import itertools

import pytest
from fake_core import FakeEngine
from fake_llm import EOS, engine_saying, generate, maker, save_model, small_backend
from octavo import OctavoError, SamplingParams, ValidationError

TEXT = "Hello, wörld 🙂 and </answ some more"


@pytest.fixture(scope="module")
def backend():
    return small_backend()


@pytest.fixture
def model(tmp_path, backend):
    return save_model(backend, tmp_path)


@pytest.fixture
def make(monkeypatch, model, backend):
    return maker(monkeypatch, model, backend)


def collect(outputs):
    """The deltas of each sample, added up: text, token ids, log-probabilities, the last delta."""
    sums = {}
    for output in outputs:
        (delta,) = output.outputs
        key = (output.prompt_index, delta.index)
        text, ids, logprobs, last = sums.get(key, ("", [], [], None))
        assert last is None or last.finish_reason is None, "a delta after the end"
        sums[key] = (text + delta.text, ids + delta.token_ids, logprobs + (delta.logprobs or []),
                     delta)  # fmt: skip
    return sums


@pytest.mark.parametrize("tokens_per_step", [1, 2, 5, 100])
@pytest.mark.parametrize("interval", [None, 1, 3, 1000])
@pytest.mark.parametrize("stop", [None, "</answer>", "some", ["wör", " and"]])
def test_deltas_add_up_to_what_generate_gives(make, backend, tokens_per_step, interval, stop):
    engine = engine_saying(backend, TEXT, "short", "", tokens_per_step=tokens_per_step)
    llm = make(engine=engine)
    params = SamplingParams(n=3, max_tokens=60, stop=stop, logprobs=2, stream_interval=interval)
    prompts = ["one", "two"]
    whole = generate(llm, prompts, params)
    sums = collect(llm.stream(prompts, params))
    assert set(sums) == set(itertools.product(range(2), range(3)))
    for (prompt, sample), (text, ids, logprobs, last) in sums.items():
        expected = whole[prompt].outputs[sample]
        assert (text, ids, logprobs) == (expected.text, expected.token_ids, expected.logprobs)
        assert last.finish_reason == expected.finish_reason
        assert last.stop_reason == expected.stop_reason
        assert last.cumulative_logprob == pytest.approx(expected.cumulative_logprob)
    assert not engine.live


def test_what_each_delta_holds(make, backend):
    llm = make("Hi there")
    outputs = list(llm.stream([{"prompt": "x"}, "y"], SamplingParams(max_tokens=50, logprobs=0)))
    assert [o.prompt_index for o in outputs[:2]] == [0, 1]
    assert {o.request_id for o in outputs} == {"0", "1"}
    assert [o.prompt for o in outputs[:2]] == ["x", "y"]
    for index in range(2):
        mine = [o for o in outputs if o.prompt_index == index]
        assert [o.finished for o in mine] == [False] * (len(mine) - 1) + [True]
        assert all(o.outputs[0].finish_reason is None for o in mine[:-1])
        assert mine[-1].metrics.num_generation_tokens == len(mine)
        sums = list(itertools.accumulate(o.outputs[0].logprobs[0][o.outputs[0].token_ids[0]].logprob
                                         for o in mine))  # fmt: skip
        assert [o.outputs[0].cumulative_logprob for o in mine] == pytest.approx(sums)


def test_finished_comes_once_at_the_end_of_all_samples(make):
    llm = make("a long answer indeed", "no", "some answer")
    outputs = list(llm.stream("x", SamplingParams(n=3, max_tokens=50)))
    assert [o.finished for o in outputs] == [False] * (len(outputs) - 1) + [True]
    assert sorted(o.outputs[0].index for o in outputs if o.outputs[0].finished()) == [0, 1, 2]


def test_samples_that_end_in_one_step(make):
    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50 if i < 2 else EOS))
    outputs = list(llm.stream("x", SamplingParams(n=4, max_tokens=50)))
    assert [o.finished for o in outputs] == [False] * 11 + [True]


def test_an_interval_holds_deltas_back_but_not_the_first_and_the_last(make):
    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50 if i < 9 else EOS))
    counts = [
        len(output.outputs[0].token_ids)
        for output in llm.stream("x", SamplingParams(max_tokens=50, stream_interval=4))
    ]
    assert counts == [1, 4, 4, 1]
    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50 if i < 9 else EOS), stream_interval=6)
    counts = [
        len(output.outputs[0].token_ids)
        for output in llm.stream("x", SamplingParams(max_tokens=50, stream_interval=4))
    ]
    assert counts == [1, 6, 3]


def test_a_stop_string_is_never_shown_in_part(make, backend):
    stop = "</answer>"
    llm = make("The</ans and </answer> behind")
    shown = ""
    for output in llm.stream("x", SamplingParams(max_tokens=50, stop=stop)):
        shown += output.outputs[0].text
        assert "The</ans and ".startswith(shown)
    assert shown == "The</ans and "


def test_prompt_logprobs_come_with_the_first_delta(make):
    np = pytest.importorskip("numpy")
    ids = np.array([6, 1, 7, 1], np.int32)
    columns = (ids, -0.5 * ids.astype(np.float32), ids, np.array([2, 4], np.int64))

    class Engine(FakeEngine):
        def step(self):
            outputs = super().step()
            for output in outputs:
                if self.num_steps == 1:
                    output.prompt_logprobs = columns
            return outputs

    llm = make(engine=Engine(reply=lambda p, s, i: 50))
    params = SamplingParams(max_tokens=3, prompt_logprobs=1)
    first, *others = llm.stream([[5, 6, 7]], params)
    assert first.prompt_logprobs[0] is None
    assert [sorted(position) for position in list(first.prompt_logprobs)[1:]] == [[1, 6], [1, 7]]
    assert all(other.prompt_logprobs is None for other in others)


def test_closing_the_iterator_aborts(make):
    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50))
    outputs = llm.stream(["a", "b", "c"], SamplingParams(max_tokens=40))
    assert not llm.fake.added, "work begins with the first next"
    for _ in range(5):
        next(outputs)
    assert len(llm.fake.live) == 3
    outputs.close()
    assert not llm.fake.live
    assert not llm._core.in_flight
    for _ in llm.stream("x", SamplingParams(max_tokens=40)):
        break
    assert not llm.fake.live
    assert generate(llm, "x", SamplingParams(max_tokens=2))[0].finished


def test_refused_prompts(make):
    llm = make("Hi")
    with pytest.raises(ValidationError, match="can never fit"):
        list(llm.stream([[5], [999]], SamplingParams(max_tokens=9)))
    assert not llm.fake.live
    outputs = list(llm.stream([[5], [999], ""], SamplingParams(max_tokens=9), on_error="return"))
    last = {o.prompt_index: o for o in outputs if o.finished}
    reasons = [last[i].outputs[0].finish_reason for i in range(3)]
    assert reasons == ["stop", "error", "error"]
    assert "can never fit" in last[1].outputs[0].error
    assert last[1].prompt_token_ids == [999]
    for bad in (dict(on_error="ignore"), dict(priority=[1, 2])):
        with pytest.raises(ValidationError):  # at the call
            llm.stream("x", **bad)
    with pytest.raises(TypeError):
        llm.stream("x", "greedy")


def test_an_error_while_it_runs_is_a_result(make):
    llm = make(engine=FakeEngine(failing="NaN in the logits", reply=lambda p, s, i: EOS))
    with pytest.warns(UserWarning, match="request 1 failed: NaN"):
        outputs = list(llm.stream([[5], [666]]))
    assert {o.prompt_index: o.outputs[0].finish_reason for o in outputs} == {0: "stop", 1: "error"}


def test_a_closed_llm(make):
    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50))
    outputs = llm.stream("x", SamplingParams(max_tokens=40))
    next(outputs)
    llm.close()
    with pytest.raises(OctavoError, match="closed while it was generating"):
        next(outputs)
    with pytest.raises(OctavoError, match="closed"):
        llm.stream("x")
