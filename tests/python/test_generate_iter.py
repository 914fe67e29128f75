"""LLM.generate_iter: any iterable, in bounded memory, in either order."""

import itertools
import random

import pytest
from fake_core import FakeEngine
from fake_llm import EOS, generate, maker, save_model, small_backend
from octavo import NotSupportedError, OctavoError, SamplingParams, ValidationError


@pytest.fixture(scope="module")
def backend():
    return small_backend()


@pytest.fixture
def model(tmp_path, backend):
    return save_model(backend, tmp_path)


@pytest.fixture
def make(monkeypatch, model, backend):
    return maker(monkeypatch, model, backend)


def length_of(prompt):
    return prompt[0] * 7 % 13


def uneven(threaded=False):
    """Prompt [i] is answered by i, as often as `length_of` says."""
    return FakeEngine(
        reply=lambda prompt, sample, i: EOS if i >= length_of(prompt) else prompt[0],
        threaded=threaded,
    )


PARAMS = SamplingParams(max_tokens=50)


def prompts_of(count):
    return ([20 + i % 300] for i in range(count))


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("most", [1, 2, 7, None])
def test_each_prompt_gets_its_result(make, threaded, in_order, most):
    llm = make(engine=uneven(threaded))
    results = list(
        llm.generate_iter(prompts_of(150), PARAMS, in_order=in_order, max_in_flight=most)
    )
    indices = [output.prompt_index for output in results]
    assert sorted(indices) == list(range(150))
    if in_order or most == 1:
        assert indices == list(range(150))
    for output in results:
        prompt = [20 + output.prompt_index % 300]
        assert output.finished
        assert output.prompt_token_ids == prompt
        assert output.outputs[0].token_ids == prompt * length_of(prompt) + [EOS]
    assert not llm.fake.live
    assert not llm._core.in_flight


def test_they_come_as_they_finish(make):
    llm = make(engine=uneven())
    indices = [o.prompt_index for o in llm.generate_iter(prompts_of(30), PARAMS)]
    assert indices != sorted(indices)
    by_length = sorted(range(30), key=lambda i: (length_of([20 + i]), i))
    assert indices == by_length


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("most", [1, 5, 64])
def test_never_more_than_max_in_flight_are_pulled(make, in_order, most):
    pulled = 0

    def source():
        nonlocal pulled
        for prompt in itertools.cycle(prompts_of(300)):
            pulled += 1
            yield prompt

    llm = make(engine=uneven())
    results = llm.generate_iter(source(), PARAMS, in_order=in_order, max_in_flight=most)
    for given in range(500):
        next(results)
        assert pulled - given <= most
        assert len(llm.fake.live) <= most
    results.close()
    assert not llm.fake.live


def test_one_slow_request_does_not_unbound_the_window(make):
    """In order, what is finished early waits, and counts."""
    engine = FakeEngine(reply=lambda prompt, sample, i: 50 if prompt[0] == 20 and i < 40 else EOS)
    llm = make(engine=engine)
    results = llm.generate_iter(prompts_of(100), PARAMS, in_order=True, max_in_flight=10)
    assert next(results).prompt_index == 0
    assert len(engine.added) <= 10
    assert [o.prompt_index for o in results] == list(range(1, 100))


def test_the_default_window(make):
    for max_num_seqs, expected in ((None, 512), (8, 64), (100, 200)):
        llm = make(engine=FakeEngine(reply=lambda p, s, i: 50), max_num_seqs=max_num_seqs)
        results = llm.generate_iter(itertools.repeat([5]), SamplingParams(max_tokens=2))
        next(results)
        assert len(llm.fake.added) == expected
        results.close()


def test_nothing_is_pulled_before_it_is_asked_for(make):
    pulled = []
    llm = make()
    results = llm.generate_iter((pulled.append(1) or "x" for _ in range(3)), PARAMS)
    assert not pulled
    assert len(list(results)) == 3


def test_an_endless_iterable_with_break(make):
    llm = make(engine=uneven(threaded=True))
    for count, _ in enumerate(llm.generate_iter(itertools.cycle(prompts_of(300)), PARAMS)):
        if count == 300:
            break
    assert not llm.fake.live
    assert not llm._core.in_flight


def test_an_exception_of_the_iterable_is_passed_on(make):
    def source():
        yield from prompts_of(5)
        raise ZeroDivisionError("mine")

    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50))
    with pytest.raises(ZeroDivisionError, match="mine"):
        list(llm.generate_iter(source(), PARAMS))
    assert llm.fake.aborted == [100, 101, 102, 103, 104]
    assert not llm.fake.live
    assert generate(llm, "x", SamplingParams(max_tokens=1))[0].finished


def test_forms_of_prompts_and_parameters(make):
    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50))
    (one,) = llm.generate_iter("Hello", SamplingParams(max_tokens=3))
    assert one.prompt == "Hello"
    (one,) = llm.generate_iter([5, 6], SamplingParams(max_tokens=3))
    assert one.prompt_token_ids == [5, 6]
    each = (SamplingParams(max_tokens=i + 1) for i in itertools.count())
    outputs = llm.generate_iter(["a", {"prompt": "b"}, [7]], each, in_order=True)
    assert [len(o.outputs[0].token_ids) for o in outputs] == [1, 2, 3]
    assert list(llm.generate_iter([], PARAMS)) == []
    assert len(next(llm.generate_iter(["x"])).outputs[0].token_ids) == 16  # the defaults


def test_parameters_may_be_one_object_that_changes(make):
    def each():
        params = SamplingParams()
        for i in range(1, 6):
            params.max_tokens = i
            yield params

    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50))
    outputs = llm.generate_iter(["x"] * 5, each(), in_order=True)
    assert [len(o.outputs[0].token_ids) for o in outputs] == [1, 2, 3, 4, 5]


def test_parameters_that_run_out(make):
    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50))
    with pytest.raises(ValidationError, match="2 sampling_params and more prompts"):
        list(llm.generate_iter(["x"] * 3, [PARAMS, PARAMS]))
    assert not llm.fake.live


@pytest.mark.parametrize("in_order", [False, True])
def test_refused_prompts_as_results(make, in_order):
    llm = make("Hello")
    prompts = [[5], [999], "", None, "text", {"prompt_embeds": [1.0]}, [2000]]
    outputs = list(llm.generate_iter(prompts, PARAMS, on_error="return", in_order=in_order))
    outputs.sort(key=lambda output: output.prompt_index)
    reasons = [o.outputs[0].finish_reason for o in outputs]
    assert reasons == ["stop", "error", "error", "error", "stop", "error", "error"]
    errors = [o.outputs[0].error for o in outputs]
    for error, text in zip(
        errors,
        [None, "can never fit", "cannot be empty", "got NoneType", None, "prompt_embeds",
         "out of vocabulary"],
        strict=True,
    ):  # fmt: skip
        assert error is text or text in error
    assert (outputs[1].prompt, outputs[1].prompt_token_ids) == (None, [999])
    assert outputs[2].prompt == ""
    assert outputs[1].outputs[0].token_ids == []
    assert all(output.finished for output in outputs)


@pytest.mark.parametrize(
    ("prompt", "error"),
    [([999], ValidationError), (None, TypeError), ({"prompt_embeds": [1.0]}, NotSupportedError)],
)
def test_refused_prompts_raise(make, prompt, error):
    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50))
    with pytest.raises(error):
        list(llm.generate_iter([[5], prompt, [6]], PARAMS))
    assert not llm.fake.live


def test_arguments_are_checked_at_the_call(make):
    llm = make()
    for bad in (dict(max_in_flight=0), dict(max_in_flight=1.5), dict(on_error="pass")):
        with pytest.raises(ValidationError):
            llm.generate_iter(["x"], PARAMS, **bad)
    with pytest.raises(TypeError, match="params must be"):
        llm.generate_iter(["x"], 5)
    with pytest.raises(NotSupportedError):
        llm.generate_iter(["x"], lora_request=object())
    llm.close()
    with pytest.raises(OctavoError, match="closed"):
        llm.generate_iter(["x"])


def test_an_interrupt_in_the_loops_wait(make):
    def interrupt(engine):
        if engine.num_steps == 20:
            raise KeyboardInterrupt

    llm = make(engine=uneven())
    llm.fake.before_step = interrupt
    with pytest.raises(KeyboardInterrupt):
        list(llm.generate_iter(itertools.cycle(prompts_of(300)), PARAMS, max_in_flight=3))
    assert not llm.fake.live
    llm.fake.before_step = lambda engine: None
    assert len(list(llm.generate_iter(prompts_of(5), PARAMS))) == 5


def test_iterators_that_are_left_at_random_moments(make):
    rng = random.Random(3)
    llm = make(engine=uneven())
    for _ in range(200):
        many = llm.generate_iter(itertools.cycle(prompts_of(300)), PARAMS, max_in_flight=8)
        deltas = llm.stream(list(prompts_of(4)), PARAMS)
        for _ in range(rng.randrange(12)):
            next(rng.choice([many, deltas]), None)
        many.close()
        deltas.close()
        assert not llm.fake.live
    assert not llm._core.in_flight
    assert [o.prompt_index for o in llm.generate_iter(prompts_of(3), PARAMS, in_order=True)] == [
        0, 1, 2,
    ]  # fmt: skip


def test_progress_bar(make):
    bars = []

    class Bar:
        def __init__(self, **options):
            self.options, self.count, self.closed = options, 0, False
            bars.append(self)

        def update(self, count):
            self.count += count

        def close(self):
            self.closed = True

    llm = make(engine=uneven())
    params = SamplingParams(n=2, max_tokens=50)
    list(llm.generate_iter([[20], [21]], params, use_tqdm=Bar))
    list(llm.generate_iter(iter([[20], [21]]), params, use_tqdm=Bar))
    assert [bar.options["total"] for bar in bars] == [4, None]
    assert [(bar.count, bar.closed) for bar in bars] == [(4, True)] * 2
