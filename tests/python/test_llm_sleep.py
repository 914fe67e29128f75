"""LLM: sleep and wake_up, metrics, and what programs look at behind it."""

import threading
import time

import pytest
from fake_core import FakeEngine
from fake_llm import EOS, generate, maker, save_model, small_backend
from octavo import NotSupportedError, OctavoError, OutOfMemoryError, SamplingParams, ValidationError
from octavo.metrics import Counter, Gauge, Histogram


@pytest.fixture(scope="module")
def backend():
    return small_backend()


@pytest.fixture
def model(tmp_path, backend):
    return save_model(backend, tmp_path)


@pytest.fixture
def make(monkeypatch, model, backend):
    return maker(monkeypatch, model, backend)


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("level", "asleep"), [(0, []), (1, ["kv_cache"]), (2, ["kv_cache", "weights"])]
)
def test_levels(make, level, asleep):
    llm = make("Hello")
    assert not llm.is_sleeping()
    llm.sleep(level)
    assert llm.is_sleeping()
    assert llm.fake.asleep == asleep
    assert llm._core.thread().paused
    if level > 0:
        for call in (lambda: generate(llm, "x"), lambda: llm.stream("x"), lambda: llm.enqueue("x"),
                     lambda: llm.generate_iter(["x"])):  # fmt: skip
            with pytest.raises(OctavoError, match="asleep"):
                call()
    assert llm.wake_up() is True
    assert not llm.is_sleeping()
    assert not llm._core.thread().paused
    assert generate(llm, "x")[0].outputs[0].text == "Hello"


def test_waking_up_in_parts(make):
    llm = make("Hello")
    llm.sleep(2)
    assert llm.wake_up(["weights"]) is False
    assert llm.fake.asleep == ["kv_cache"]
    with pytest.raises(OctavoError, match="asleep"):
        generate(llm, "x")
    assert llm.wake_up(["scheduling"]) is False
    assert llm.wake_up(["kv_cache"]) is True
    assert generate(llm, "x")[0].finished
    llm.sleep(0)
    assert llm.wake_up(["weights", "kv_cache"]) is False
    assert llm.wake_up(["scheduling"]) is True
    assert llm.wake_up() is True  # it is awake


def test_the_engine_says_what_is_awake(make, monkeypatch):
    """A wake_up that fails half-way: what the engine has woken is awake."""
    llm = make("Hello")
    llm.sleep(2)
    fake = llm.fake

    def weights_alone(weights=True, kv_cache=True):
        fake.asleep = ["kv_cache"]
        raise OutOfMemoryError("wake_up: no more memory")

    with monkeypatch.context() as context:
        context.setattr(fake, "wake_up", weights_alone)
        with pytest.raises(OutOfMemoryError):
            llm.wake_up()
    assert llm.is_sleeping()
    with pytest.raises(OctavoError, match="asleep"):
        generate(llm, "x")
    assert llm.wake_up(["kv_cache"]) is True
    assert not llm.is_sleeping()
    assert generate(llm, "x")[0].outputs[0].text == "Hello"


def test_wrong_arguments(make):
    llm = make()
    for level in (3, -1, "1", None, True):
        with pytest.raises(ValidationError, match="level must be"):
            llm.sleep(level)
    with pytest.raises(ValidationError, match="mode must be"):
        llm.sleep(mode="hard")
    with pytest.raises(ValidationError, match="tags must be"):
        llm.wake_up(["memory"])
    assert not llm.is_sleeping()


class Call(threading.Thread):
    """generate in a thread."""

    def __init__(self, llm, tokens):
        super().__init__()
        self.llm, self.params = llm, SamplingParams(max_tokens=tokens, detokenize=False)
        self.outputs = None
        self.start()
        until(lambda: llm.fake.live)

    def run(self):
        self.outputs = self.llm.generate([[5]], self.params, use_tqdm=False)

    def result(self):
        self.join()
        return self.outputs[0].outputs[0]


def slow_engine():
    engine = FakeEngine(
        reply=lambda p, s, i: 50, before_step=lambda e: time.sleep(0.001), threaded=True
    )
    engine.info.max_model_len = 10**9
    return engine


@pytest.mark.parametrize("level", [0, 1])
def test_modes(make, level):
    llm = make(engine=slow_engine())
    call = Call(llm, 10**6)
    llm.sleep(level, mode="abort")
    assert call.result().finish_reason == "abort"
    llm.wake_up()

    call = Call(llm, 50)
    llm.sleep(level, mode="wait")
    assert not llm.fake.live
    assert call.result().finish_reason == "length"
    llm.wake_up()

    call = Call(llm, 50)
    llm.sleep(level, mode="keep")
    steps = llm.fake.num_steps
    assert call.is_alive()
    time.sleep(0.01)
    assert llm.fake.num_steps == steps
    llm.wake_up()
    sample = call.result()
    assert (sample.finish_reason, len(sample.token_ids)) == ("length", 50)


def test_metrics(make):
    llm = make()
    counter, gauge, histogram = llm.get_metrics()
    labels = {"model_name": "fake"}
    assert counter == Counter("vllm:generation_tokens", labels, 7)
    assert gauge == Gauge("vllm:num_requests_running", labels, 1.0)
    assert histogram == Histogram(
        "vllm:time_to_first_token_seconds", labels, 2, 1.5, {"0.5": 1, "+Inf": 2}
    )
    assert llm.get_metrics("octavo")[0].name == "octavo:generation_tokens"
    llm.close()
    with pytest.raises(OctavoError, match="closed"):
        llm.get_metrics()


def test_what_programs_look_at(make, model):
    info = FakeEngine(reply=lambda p, s, i: EOS)
    info.info.config_json = '{"rope_theta": 10000.0, "_attn": 1}'
    llm = make(engine=info, seed=7)
    config = llm.llm_engine.model_config
    assert config is llm.model_config is llm.llm_engine.get_model_config()
    assert (config.max_model_len, config.get_vocab_size(), config.seed) == (64, 1000, 7)
    assert config.hf_config.rope_theta == 10000.0
    assert (config.model, config.tokenizer, config.dtype) == (str(model), str(model), "float32")
    assert llm.llm_engine.get_tokenizer() is llm.get_tokenizer()
    assert not llm.llm_engine.has_unfinished_requests()
    assert llm.get_world_size() == llm.get_world_size(include_dp=False) == 1
    llm.reset_mm_cache()
    generate(llm, ["x", "y"])
    assert llm.request_counter.counter == 2
    for call in (llm.start_profile, llm.stop_profile):
        with pytest.raises(NotSupportedError):
            call()
