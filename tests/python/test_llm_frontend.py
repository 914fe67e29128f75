"""LLM over an engine whose replies are written down: order, defaults, ends, errors, progress."""

import json
import os
import threading

import pytest
from fake_core import FakeEngine, FakeModelInfo
from fake_llm import EOS, EOT, engine_saying, generate, maker, save_model, small_backend
from octavo import (
    ModelLoadError,
    NotSupportedError,
    OctavoError,
    SamplingParams,
    ValidationError,
)


@pytest.fixture(scope="module")
def backend():
    return small_backend()


@pytest.fixture
def model(tmp_path, backend):
    return save_model(backend, tmp_path)


@pytest.fixture
def make(monkeypatch, model, backend):
    return maker(monkeypatch, model, backend)


# Results.


def test_one_prompt(make, backend):
    llm = make("Hello, world")
    (output,) = generate(llm, "The fox")
    assert output.prompt == "The fox"
    assert output.request_id == "0"
    assert output.finished
    assert output.prompt_token_ids == backend.encode("The fox").ids
    (sample,) = output.outputs
    assert (sample.index, sample.text, sample.finish_reason) == (0, "Hello, world", "stop")
    assert sample.stop_reason is None
    assert sample.cumulative_logprob is None
    assert sample.token_ids == [*backend.encode("Hello, world").ids, EOS]
    assert output.num_cached_tokens == 0
    assert output.prompt_index == 0


def test_the_order_is_that_of_the_prompts(make, backend):
    def reply(prompt, sample, position):
        return EOS if position >= prompt[0] % 7 else prompt[0]

    llm = make(engine=FakeEngine(reply=reply))
    prompts = [[40 + i] for i in range(20)]
    outputs = generate(llm, prompts)
    assert [o.request_id for o in outputs] == [str(i) for i in range(20)]
    assert [o.prompt_token_ids for o in outputs] == prompts
    assert [len(o.outputs[0].token_ids) for o in outputs] == [(40 + i) % 7 + 1 for i in range(20)]
    assert all(o.prompt is None for o in outputs)
    assert generate(llm, "more")[0].request_id == "20"


def test_no_prompts(make):
    llm = make()
    assert generate(llm, []) == []
    assert llm.chat([], use_tqdm=False) == []


def test_samples(make):
    llm = make("one", "two", "three")
    (output,) = generate(llm, "x", SamplingParams(n=3, max_tokens=50))
    assert [(s.index, s.text) for s in output.outputs] == [(0, "one"), (1, "two"), (2, "three")]


def test_lengths(make, backend):
    llm = make(engine=engine_saying(backend, "Hello", eos=False))
    (output,) = generate(llm, "x", SamplingParams(max_tokens=4))
    assert output.outputs[0].finish_reason == "length"
    assert len(output.outputs[0].token_ids) == 4
    (output,) = generate(llm, [9] * 10, SamplingParams(max_tokens=None))
    assert len(output.outputs[0].token_ids) == 64 - 10


def test_steps_of_several_tokens(make, backend):
    engine = engine_saying(backend, "Hello, my name is Ada", tokens_per_step=5)
    (output,) = generate(make(engine=engine), "x")
    assert output.outputs[0].text == "Hello, my name is Ada"


# What ends a text.


@pytest.mark.parametrize("include", [False, True])
def test_stop_strings(make, backend, include):
    engine = engine_saying(backend, "I say: STOP now, dear", "no end", tokens_per_step=3)
    llm = make(engine=engine)
    params = SamplingParams(
        n=2, max_tokens=40, stop=["now", "STOP"], include_stop_str_in_output=include
    )
    (output,) = generate(llm, "x", params)
    first, second = output.outputs
    assert first.text == ("I say: STOP" if include else "I say: ")
    assert (first.finish_reason, first.stop_reason) == ("stop", "STOP")
    assert backend.decode(first.token_ids).startswith("I say: STOP")
    assert "now" not in backend.decode(first.token_ids)
    assert second.finish_reason == "stop"
    assert second.stop_reason is None
    assert llm.fake.aborted == [(100, 0)]
    assert not llm.fake.live
    assert llm.fake.added[0].params.max_tokens == 40


def test_stop_string_is_not_looked_for_before_min_tokens(make, backend):
    word = backend.encode("aaaaaaaa", add_special_tokens=False).ids
    llm = make("a" * 8)
    params = SamplingParams(max_tokens=20, min_tokens=len(word) - 1, stop=["a"])
    sample = generate(llm, "x", params)[0].outputs[0]
    assert len(sample.token_ids) == len(word)
    assert sample.stop_reason == "a"


def test_held_back_text_appears_at_the_end(make):
    sample = generate(make("wait </an"), "x", SamplingParams(stop="</answer>", max_tokens=30))
    assert sample[0].outputs[0].text == "wait </an"


def test_stop_tokens(make, backend):
    comma = backend.token_to_id(",")
    llm = make("one, two")
    sample = generate(llm, "x", SamplingParams(stop_token_ids=[comma]))[0].outputs[0]
    assert (sample.text, sample.stop_reason) == ("one", comma)
    assert sample.token_ids[-1] == comma
    params = SamplingParams(stop_token_ids=[comma], include_stop_str_in_output=True)
    assert generate(llm, "x", params)[0].outputs[0].text == "one,"


def test_secondary_end_tokens_report_their_id(make, model, backend):
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [EOS, EOT, 5000]}))

    def reply(prompt, sample, position):
        return EOT if position == 2 else 50

    llm = make(engine=FakeEngine(reply=reply))
    sample = generate(llm, "x")[0].outputs[0]
    assert (sample.finish_reason, sample.stop_reason) == ("stop", EOT)
    assert len(sample.token_ids) == 3
    assert llm.fake.added[0].params.extra_eos_token_ids == [EOT]
    sample = generate(llm, "x", SamplingParams(ignore_eos=True, max_tokens=6))[0].outputs[0]
    assert sample.finish_reason == "length"


def test_the_tokenizers_end_token_is_the_primary_one(make):
    """The model's configuration names another end token than the tokenizer."""
    info = FakeModelInfo(eos_token_id=EOT, config_json=json.dumps({"eos_token_id": EOT}))
    ends = {"tokenizer": EOS, "model": EOT}
    for name, end in ends.items():
        engine = FakeEngine(info=info, reply=lambda p, s, i, end=end: end if i else 50)
        sample = generate(make(engine=engine), "x")[0].outputs[0]
        assert sample.finish_reason == "stop"
        assert sample.stop_reason == (None if name == "tokenizer" else EOT)


def test_detokenize_off(make):
    sample = generate(make("Hello"), "x", SamplingParams(detokenize=False))[0].outputs[0]
    assert sample.text == ""
    assert len(sample.token_ids) > 1


def test_special_tokens_in_text(make, backend):
    engine = FakeEngine(reply=lambda p, s, i: [50, EOT, 51, EOS][i])
    llm = make(engine=engine)
    text = backend.decode([50, 51])
    assert generate(llm, "x")[0].outputs[0].text == text
    sample = generate(llm, "x", SamplingParams(skip_special_tokens=False))[0].outputs[0]
    assert sample.text == backend.decode([50]) + "<|eot|>" + backend.decode([51])


# Parameters.


def test_parameters_for_each_prompt(make):
    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50))
    each = [SamplingParams(max_tokens=i) for i in (1, 2, 3)]
    outputs = generate(llm, ["a", "b", "c"], each)
    assert [len(o.outputs[0].token_ids) for o in outputs] == [1, 2, 3]


def test_mismatched_lengths(make):
    llm = make()
    with pytest.raises(ValidationError) as caught:
        generate(llm, ["a", "b"], [SamplingParams()])
    assert str(caught.value) == "The lengths of prompts (2) and params (1) must be the same."
    with pytest.raises(ValidationError, match=r"prompts \(1\) and priority \(2\) must be the same"):
        generate(llm, ["a"], priority=[1, 2])
    generate(llm, ["a"], priority=[1])
    generate(llm, ["a"], priority=5)


@pytest.mark.parametrize("params", [{"n": 1}, "greedy", [SamplingParams(), None]])
def test_wrong_parameters(make, params):
    with pytest.raises(TypeError, match="params must be either SamplingParams or PoolingParams"):
        generate(make(), ["a", "b"], params)


def test_unsupported_arguments(make):
    llm = make()
    with pytest.raises(NotSupportedError, match="lora_request"):
        generate(llm, "x", lora_request=object())
    with pytest.raises(TypeError, match="prompts"):
        llm.generate()


def test_defaults_come_from_generation_config(make, model):
    content = {
        "temperature": 0.6,
        "top_p": 0.9,
        "top_k": 50,
        "max_new_tokens": 7,
        "do_sample": True,
    }
    (model / "generation_config.json").write_text(json.dumps(content))
    llm = make(engine=FakeEngine(reply=lambda p, s, i: 50))
    params = llm.get_default_sampling_params()
    assert (params.temperature, params.top_p, params.top_k, params.max_tokens) == (0.6, 0.9, 50, 7)
    assert len(llm.generate("x", use_tqdm=False)[0].outputs[0].token_ids) == 7
    assert llm.fake.added[-1].params.top_k == 50
    generate(llm, "x", SamplingParams(max_tokens=2))  # explicit ones take none of them
    assert llm.fake.added[-1].params.top_k == 0
    ignoring = make(generation_config="vllm").get_default_sampling_params()
    assert ignoring == SamplingParams()
    override = make(override_generation_config={"temperature": 0.1})
    assert override.get_default_sampling_params().temperature == 0.1
    with pytest.raises(ModelLoadError, match=r"generation_config\.json does not exist"):
        make(generation_config=str(model / "nowhere"))


def test_default_penalties_come_from_generation_config(make, model):
    content = {"repetition_penalty": 1.25, "presence_penalty": 0.5, "frequency_penalty": -0.5}
    (model / "generation_config.json").write_text(json.dumps(content))
    llm = make()
    params = llm.get_default_sampling_params()
    assert params == SamplingParams(**content)
    llm.generate("x", use_tqdm=False)
    assert llm.fake.added[-1].params.repetition_penalty == 1.25


# Refused prompts.


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("", "The decoder prompt cannot be empty"),
        ([[]], "The decoder prompt cannot be empty"),
        ([5, 1000], "Token id 1000 is out of vocabulary"),
        ([5, -1], "Token id -1 is out of vocabulary"),
        ([5] * 64, "The decoder prompt (length 64) plus the number of requested output tokens (at "
                   "least 1) is longer than the maximum model length of 64."),
        ([5] * 65, "This model's maximum context length is 64 tokens. However, your prompt "
                   "contains 65 input tokens, which exceeds this limit even without any output "
                   "tokens."),
    ],
)  # fmt: skip
def test_refused_prompts(make, prompt, text):
    llm = make("Hello")
    with pytest.raises(ValidationError) as caught:
        generate(llm, prompt)
    assert str(caught.value).startswith(text)
    assert not llm.fake.live
    assert generate(llm, "x")[0].outputs[0].text == "Hello"


def test_when_one_prompt_is_refused_the_others_are_aborted(make):
    llm = make()
    with pytest.raises(ValidationError, match="can never fit"):
        generate(llm, [[5], [6], [999], [7]])
    assert llm.fake.aborted == [100, 101]
    assert not llm.fake.live
    assert llm.fake.num_steps == 0
    with pytest.raises(ValidationError, match="out-of-vocab"):
        generate(llm, "x", SamplingParams(stop_token_ids=[1000]))
    assert generate(llm, "x")[0].finished


def test_tokenization_kwargs(make):
    llm = make()
    text = "The quick brown fox jumps"
    whole = generate(llm, text)[0].prompt_token_ids
    kept = {"truncate_prompt_tokens": 3}
    assert generate(llm, text, tokenization_kwargs=kept)[0].prompt_token_ids == whole[-3:]
    kept["truncation_side"] = "right"
    assert generate(llm, text, tokenization_kwargs=kept)[0].prompt_token_ids == whole[:3]
    long = generate(llm, text * 30, tokenization_kwargs={"truncate_prompt_tokens": -1})
    assert len(long[0].prompt_token_ids) == 63
    with pytest.warns(UserWarning, match="padding"):
        generate(llm, text, tokenization_kwargs={"padding": True})
    with pytest.raises(ValidationError, match="truncate_prompt_tokens"):
        generate(llm, text, tokenization_kwargs={"truncate_prompt_tokens": 0})


def test_cache_salt_reaches_the_engine(make):
    llm = make()
    generate(llm, {"prompt": "x", "cache_salt": "tenant"})
    assert llm.fake.added[0].cache_salt == "tenant"


# Failures while generating.


def test_an_error_of_one_request_loses_no_other(make):
    llm = make(engine=FakeEngine(failing="NaN in the logits", reply=lambda p, s, i: EOS))
    with pytest.warns(UserWarning, match="request 1 failed: NaN in the logits"):
        outputs = generate(llm, [[5], [666], [7]])
    assert [o.outputs[0].finish_reason for o in outputs] == ["stop", "error", "stop"]
    assert outputs[1].outputs[0].error == "NaN in the logits"


def test_interruption_aborts_the_requests_of_the_call(make):
    def interrupt(engine):
        if engine.num_steps == 3:
            raise KeyboardInterrupt

    engine = FakeEngine(reply=lambda p, s, i: 50, before_step=interrupt)
    llm = make(engine=engine)
    with pytest.raises(KeyboardInterrupt):
        generate(llm, ["a", "b"])
    assert engine.aborted == [100, 101]
    assert not engine.live
    engine.before_step = lambda engine: None
    assert generate(llm, "c")[0].request_id == "2"


def test_threads_do_not_mix_their_results(make):
    llm = make(engine=FakeEngine(reply=lambda p, s, i: p[0] if i < 5 else EOS))
    results = {}

    def work(i):
        results[i] = [generate(llm, [[20 + i], [40 + i]]) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, calls in results.items():
        for first, second in calls:
            assert first.outputs[0].token_ids == [20 + i] * 5 + [EOS]
            assert second.outputs[0].token_ids == [40 + i] * 5 + [EOS]
    ids = [o.request_id for calls in results.values() for call in calls for o in call]
    assert sorted(map(int, ids)) == list(range(60))


# The life of an LLM.


def test_close(make):
    llm = make()
    with llm as same:
        assert same is llm
        assert generate(llm, "x")
    llm.close()
    for call in (lambda: generate(llm, "x"), llm.stats, llm.reset_prefix_cache,
                 lambda: llm.chat([{"role": "user", "content": "x"}])):  # fmt: skip
        with pytest.raises(OctavoError, match="closed"):
            call()
    assert "closed" in repr(llm)
    assert llm.model_info.vocab_size == 1000


def test_close_ends_a_call_in_another_thread(make):
    started = threading.Event()
    engine = FakeEngine(reply=lambda p, s, i: 50, before_step=lambda engine: started.set())
    engine.info.max_model_len = 10**9
    llm = make(engine=engine)
    errors = []

    def work():
        try:
            generate(llm, "x", SamplingParams(max_tokens=10**8, detokenize=False))
        except OctavoError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    llm.close()
    thread.join()
    assert errors == ["LLM: it was closed while it was generating"]
    assert not engine.live


def test_a_fork_gets_a_clear_error(make, monkeypatch):
    llm = make()
    monkeypatch.setattr(llm._core, "_pid", os.getpid() + 1)
    with pytest.raises(OctavoError, match="spawn"):
        generate(llm, "x")


def test_stats_and_cache(make):
    llm = make()
    assert llm.stats()["num_steps"] == 0
    assert llm.reset_prefix_cache() is True
    assert llm.fake.aborted == ["reset"]
    assert llm.get_tokenizer().eos_token == "</s>"
    assert llm.max_model_len == 64


def test_metrics(make):
    (output,) = generate(make("Hello"), "x")
    assert output.metrics.num_generation_tokens == len(output.outputs[0].token_ids)
    assert 0 < output.metrics.queued_ts <= output.metrics.scheduled_ts
    assert output.metrics.scheduled_ts <= output.metrics.first_token_ts
    assert output.metrics.first_token_ts <= output.metrics.last_token_ts
    assert output.metrics.first_token_latency >= 0
