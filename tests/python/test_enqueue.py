"""LLM.enqueue, wait_for_completion and abort; on_error and prompt_token_ids of generate."""

import threading
import time

import pytest
from fake_core import FakeEngine
from fake_llm import EOS, generate, maker, save_model, small_backend
from octavo import OctavoError, RequestOutput, SamplingParams, ValidationError

PARAMS = SamplingParams(max_tokens=50)


@pytest.fixture(scope="module")
def backend():
    return small_backend()


@pytest.fixture
def model(tmp_path, backend):
    return save_model(backend, tmp_path)


@pytest.fixture
def make(monkeypatch, model, backend):
    return maker(monkeypatch, model, backend)


def echo(threaded=False):
    return FakeEngine(
        reply=lambda p, s, i: EOS if i >= p[0] % 5 else p[0], threaded=threaded
    )  # fmt: skip


def endless():
    engine = FakeEngine(reply=lambda p, s, i: 50, threaded=True)
    engine.info.max_model_len = 10**9
    return engine


ENDLESS = SamplingParams(max_tokens=10**8, detokenize=False)


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_enqueue_and_wait(make):
    llm = make(engine=echo())
    assert llm.enqueue([[21], [24]], PARAMS, use_tqdm=False) == ["0", "1"]
    assert llm.enqueue([22], PARAMS, use_tqdm=False) == ["2"]
    assert len(llm.fake.live) == 3
    outputs = llm.wait_for_completion(use_tqdm=False)
    assert [o.request_id for o in outputs] == ["0", "1", "2"]
    assert [len(o.outputs[0].token_ids) for o in outputs] == [2, 5, 3]
    assert llm.wait_for_completion(use_tqdm=False) == []
    llm.enqueue("x", PARAMS, use_tqdm=False)
    generate(llm, "y")
    (output,) = llm.wait_for_completion(RequestOutput, use_tqdm=False)
    assert output.request_id == "3"
    with pytest.raises(TypeError, match="output_type"):
        llm.wait_for_completion(str)


def test_enqueued_requests_start_at_once(make):
    llm = make(engine=echo(threaded=True))
    llm.enqueue([[24]] * 3, PARAMS, use_tqdm=False)
    until(lambda: not llm.fake.live)
    assert all(o.finished for o in llm.wait_for_completion(use_tqdm=False))


def test_enqueue_chat(make):
    llm = make("Hello")
    user = {"role": "user", "content": "Hi"}
    assert llm.enqueue_chat([[user], [user, user]], PARAMS, use_tqdm=False) == ["0", "1"]
    outputs = llm.wait_for_completion(use_tqdm=False)
    assert [o.prompt.count("user") for o in outputs] == [1, 2]
    assert [o.outputs[0].text for o in outputs] == ["Hello", "Hello"]


def test_stop_strings_are_found_when_the_results_are_waited_for(make):
    llm = make("one two three")
    llm.enqueue("x", SamplingParams(max_tokens=50, stop=" two"), use_tqdm=False)
    (output,) = llm.wait_for_completion(use_tqdm=False)
    assert output.outputs[0].text == "one"


def test_a_refused_prompt_takes_back_its_call_alone(make):
    llm = make(engine=echo())
    llm.enqueue([21], PARAMS, use_tqdm=False)
    with pytest.raises(ValidationError, match="can never fit"):
        llm.enqueue([[22], [999], [23]], PARAMS, use_tqdm=False)
    assert len(llm.fake.live) == 1
    assert [o.prompt_token_ids for o in llm.wait_for_completion(use_tqdm=False)] == [[21]]
    assert not llm._core.in_flight


def test_an_interrupt_of_waiting_aborts(make):
    def interrupt(engine):
        raise KeyboardInterrupt

    llm = make(engine=echo())
    llm.enqueue([[24]] * 3, PARAMS, use_tqdm=False)
    llm.fake.before_step = interrupt
    with pytest.raises(KeyboardInterrupt):
        llm.wait_for_completion(use_tqdm=False)
    llm.fake.before_step = lambda engine: None
    assert not llm.fake.live
    assert llm.wait_for_completion(use_tqdm=False) == []


def test_bars(make, capsys):
    llm = make("Hi")
    llm.enqueue(["x", "y"], PARAMS)
    assert "Rendering prompts" in capsys.readouterr().err
    llm.wait_for_completion()
    shown = capsys.readouterr().err
    assert "Processed prompts" in shown
    assert "est. speed input: " in shown


# Aborting by id.


def test_abort_gives_the_caller_what_there_is(make):
    llm = make(engine=endless())
    results = []
    thread = threading.Thread(
        target=lambda: results.extend(llm.generate([[5], [6]], ENDLESS, use_tqdm=False))
    )
    thread.start()
    until(lambda: len(llm._core.in_flight) == 2)
    llm.abort("0")
    until(lambda: "0" not in llm._core.in_flight)
    assert thread.is_alive()
    llm.abort(["1", "17", "no such"])
    thread.join()
    assert [o.outputs[0].finish_reason for o in results] == ["abort", "abort"]
    assert all(o.finished for o in results)
    assert not llm.fake.live
    assert not llm._core.in_flight


def test_abort_of_enqueued_requests(make):
    llm = make(engine=endless())
    first, second = llm.enqueue([[5], [6]], ENDLESS, use_tqdm=False)
    llm.abort([first, second])
    outputs = llm.wait_for_completion(use_tqdm=False)
    assert [o.outputs[0].finish_reason for o in outputs] == ["abort", "abort"]


def test_abort_while_streaming(make):
    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50))
    outputs = llm.stream([[5], [6]], SamplingParams(n=2, max_tokens=40))
    text = "".join(next(outputs).outputs[0].text for _ in range(8))
    assert text
    llm.abort("0")
    rest = list(outputs)
    aborted = [o for o in rest if o.request_id == "0" and o.outputs[0].finish_reason is not None]
    assert [o.outputs[0].finish_reason for o in aborted] == ["abort"] * 2
    assert [o.finished for o in aborted] == [False, True]
    other = [o for o in rest if o.request_id == "1"]
    assert other[-1].outputs[0].finish_reason == "length"


def test_closing_aborts_what_is_enqueued(make):
    llm = make(engine=endless())
    llm.enqueue([[5], [6]], ENDLESS, use_tqdm=False)
    llm.close()
    assert not llm.fake.live
    with pytest.raises(OctavoError, match="closed"):
        llm.wait_for_completion(use_tqdm=False)
    with pytest.raises(OctavoError, match="closed"):
        llm.enqueue("x")
    with pytest.raises(OctavoError, match="closed"):
        llm.abort("0")


# generate.


def test_on_error_return(make):
    llm = make("Hello")
    outputs = generate(llm, ["a", [999], "", "b", [2000]], PARAMS, on_error="return")
    reasons = [o.outputs[0].finish_reason for o in outputs]
    assert reasons == ["stop", "error", "error", "stop", "error"]
    assert [o.prompt_index for o in outputs] == list(range(5))
    assert [o.request_id for o in outputs] == list("01234")
    assert outputs[1].outputs[0].error.startswith("add_request: this can never fit")
    assert outputs[1].outputs[0].text == ""
    assert outputs[4].prompt_token_ids == [2000]
    outputs = generate(llm, ["a", 5.0], PARAMS, on_error="return")
    assert "Prompt should be a string" in outputs[1].outputs[0].error
    bad = SamplingParams(stop_token_ids=[5000])
    outputs = generate(llm, ["a", "b"], [PARAMS, bad], on_error="return")
    assert [o.outputs[0].finish_reason for o in outputs] == ["stop", "error"]
    with pytest.raises(ValidationError, match="on_error"):
        generate(llm, "a", on_error="return it")
    with pytest.raises(TypeError, match="params must be"):
        generate(llm, ["a"], ["greedy"], on_error="return")


def test_old_prompt_token_ids(make):
    llm = make(engine=echo())
    for ids in ([21, 22], [[21, 22]]):
        with pytest.warns(DeprecationWarning, match="prompt_token_ids is deprecated"):
            (output,) = llm.generate(prompt_token_ids=ids, sampling_params=PARAMS, use_tqdm=False)
        assert output.prompt_token_ids == [21, 22]
    with (
        pytest.warns(DeprecationWarning, match="prompt_token_ids"),
        pytest.raises(ValidationError, match="either prompts or prompt_token_ids"),
    ):
        llm.generate("x", prompt_token_ids=[21], use_tqdm=False)


def test_output_kind_of_generate_is_final_only(make):
    params = SamplingParams(max_tokens=50, output_kind=1)
    llm = make("Hello")
    assert generate(llm, "x", params)[0].outputs[0].text == "Hello"
    assert params.output_kind == 1
