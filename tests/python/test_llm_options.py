"""LLM: its arguments, its progress bars, chat, and work without a tokenizer."""

import inspect
import json

import pytest
from fake_core import FakeEngine
from fake_llm import EOS, generate, maker, save_model, small_backend
from octavo import (
    LLM,
    AsyncEngineArgs,
    EngineArgs,
    NotSupportedError,
    SamplingParams,
    ValidationError,
)
from octavo.chat_template import ChatTemplateResolutionError


@pytest.fixture(scope="module")
def backend():
    return small_backend()


@pytest.fixture
def model(tmp_path, backend):
    return save_model(backend, tmp_path)


@pytest.fixture
def make(monkeypatch, model, backend):
    return maker(monkeypatch, model, backend)


# Token ids in, token ids out.


def test_without_a_tokenizer(make):
    llm = make(engine=FakeEngine(reply=lambda p, s, i: [60, 61, EOS][i]), skip_tokenizer_init=True)
    (output,) = generate(llm, {"prompt_token_ids": [5, 6]})
    assert output.outputs[0].token_ids == [60, 61, EOS]
    assert output.outputs[0].text == ""
    assert output.outputs[0].stop_reason is None
    for call in (lambda: generate(llm, "text"), llm.get_tokenizer,
                 lambda: llm.chat([{"role": "user", "content": "x"}])):  # fmt: skip
        with pytest.raises(ValidationError, match="tokenizer"):
            call()


# Arguments.


def test_arguments_reach_the_engine(make, model):
    llm = make(dtype="half", max_model_len="2k", seed=-1, num_gpu_blocks_override=9)
    options = llm.fake.options
    assert options["model"] == str(model)
    assert (options["dtype"], options["max_model_len"]) == ("float16", 2000)
    assert (options["seed"], options["num_kv_blocks"]) == (2**64 - 1, 9)
    assert options["quantization"] == "auto"
    assert "max_num_seqs" not in options
    assert "enable_prefix_caching" not in options
    options = make(max_num_seqs=8, enable_prefix_caching=False, max_model_len=-1).fake.options
    assert options["max_num_seqs"] == 8
    assert options["enable_prefix_caching"] is False
    assert options["max_model_len"] == 0
    assert (options["max_logprobs"], options["logprobs_mode"]) == (20, "raw_logprobs")
    options = make(max_logprobs=-1, logprobs_mode="processed_logits").fake.options
    assert (options["max_logprobs"], options["logprobs_mode"]) == (-1, "processed_logits")


def test_the_share_of_a_gpus_memory(make):
    assert make().fake.options["gpu_memory_utilization"] == 0.9
    assert make(gpu_memory_utilization=1).fake.options["gpu_memory_utilization"] == 1.0
    for value in (0, -0.5, 1.01, float("nan"), "0.9", True, None):
        with pytest.raises(ValidationError, match="gpu_memory_utilization must be a number above"):
            make(gpu_memory_utilization=value)


def test_devices_reach_the_engine(make):
    for device in ("auto", "cpu", "cuda", "cuda:1", "ref"):
        assert make(device=device).fake.options["device"] == device


def test_vllms_other_arguments(make):
    make(enforce_eager=True, trust_remote_code=True)
    make(tensor_parallel_size=1, quantization=None, scheduling_policy="fcfs", block_size=16)
    for name, value in {
        "tensor_parallel_size": 2,
        "quantization": "awq",
        "enable_lora": True,
        "runner": "pooling",
        "speculative_config": {"method": "ngram"},
        "cpu_offload_gb": 4,
    }.items():
        with pytest.raises(NotSupportedError, match=f"{name}=.* is not supported"):
            make(**{name: value})
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such_thing'"):
        make(no_such_thing=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", "generate"), ("task", "auto"), ("swap_space", 4), ("max_seq_len_to_capture", 8192),
        ("use_v2_block_manager", True), ("num_scheduler_steps", 8),
        ("guided_decoding_backend", "outlines"), ("max_context_len_to_capture", 8192),
    ],
)  # fmt: skip
def test_removed_arguments_are_ignored(make, name, value):
    with pytest.warns(DeprecationWarning, match=name):
        llm = make(**{name: value})
    assert name not in llm.fake.options
    assert generate(llm, "x")[0].finished


def test_other_tasks_are_refused(make):
    with pytest.raises(NotSupportedError, match="task='embed'"):
        make(task="embed")


def test_engine_args(make, model):
    args = EngineArgs(str(model), max_model_len="2k", gpu_memory_utilization=0.5)
    assert (args.max_model_len, args.gpu_memory_utilization) == ("2k", 0.5)
    assert (args.seed, args.tokenizer) == (0, None)
    assert args == EngineArgs(str(model), max_model_len="2k", gpu_memory_utilization=0.5)
    assert args != AsyncEngineArgs(str(model))
    assert "max_model_len='2k'" in repr(args)
    assert "seed" not in repr(args)
    assert "secret" not in repr(EngineArgs("x", hf_token="secret"))
    fake = make().fake
    assert LLM.from_engine_args(args).max_model_len == 64
    assert fake.options["max_model_len"] == 2000
    with pytest.raises(TypeError, match="no_such_thing"):
        EngineArgs("x", no_such_thing=1)


def test_engine_args_are_those_of_llm():
    """One table of names and defaults is in the constructor, the other in EngineArgs."""
    parameters = inspect.signature(LLM).parameters.values()
    keywords = {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}
    assert keywords == {k: v for k, v in vars(EngineArgs("x")).items() if k != "model"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_model_len", 0), ("max_model_len", "many"), ("max_num_seqs", 0), ("seed", 1.5),
        ("max_num_batched_tokens", 2**31), ("kv_cache_memory_bytes", -1), ("num_threads", True),
        ("max_logprobs", -2), ("max_logprobs", 2.0), ("logprobs_mode", "cooked_logprobs"),
        ("logprobs_mode", None),
    ],
)  # fmt: skip
def test_refused_arguments(make, name, value):
    with pytest.raises(ValidationError, match=f"{name} must be"):
        make(**{name: value})


# Progress bars.


class Bar:
    made: list = []  # noqa: RUF012

    def __init__(self, iterable=None, **options):
        self.iterable, self.options, self.count, self.closed = iterable, options, 0, False
        self.postfix = options.get("postfix")
        Bar.made.append(self)

    def __iter__(self):
        return iter(self.iterable)

    def update(self, count):
        self.count += count

    def close(self):
        self.closed = True


def test_progress_bars(make):
    Bar.made = []
    make("a", "b").generate(["x", "y"], SamplingParams(n=2, max_tokens=9), use_tqdm=Bar)
    rendering, processing = Bar.made
    assert rendering.options["desc"] == "Rendering prompts"
    assert len(rendering.iterable) == 2
    assert processing.options["desc"] == "Processed prompts"
    assert processing.options["total"] == processing.count == 4
    assert processing.closed
    assert processing.postfix.startswith("est. speed input: ")
    assert "toks/s, output: " in processing.postfix


def test_real_progress_bar(make, capsys):
    make().generate("x", SamplingParams(max_tokens=2))
    shown = capsys.readouterr().err
    assert "Rendering prompts" in shown
    assert "Processed prompts" in shown


# Chat.


USER = {"role": "user", "content": "Hi"}


def test_chat(make, backend):
    llm = make("Hello")
    (output,) = llm.chat([USER], SamplingParams(max_tokens=20), use_tqdm=False)
    assert output.prompt == "<s>user: Hi\nAI:"
    assert output.prompt_token_ids == backend.encode(output.prompt, add_special_tokens=False).ids
    assert output.prompt_token_ids.count(1) == 1
    assert output.outputs[0].text == "Hello"
    both = llm.chat([[USER], [USER, USER]], use_tqdm=False)
    assert [o.prompt.count("user") for o in both] == [1, 2]


def test_chat_templates(make, model, tmp_path):
    llm = make()
    (output,) = llm.chat([USER], chat_template="T{{ messages[0].content }}", use_tqdm=False)
    assert output.prompt == "THi"
    path = tmp_path / "own.jinja"
    path.write_text("own {{ messages | length }}")
    assert make(chat_template=path).chat([USER], use_tqdm=False)[0].prompt == "own 1"
    assert make(chat_template="lit{{ 1 }}").chat([USER], use_tqdm=False)[0].prompt == "lit1"
    config = json.loads((model / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ChatTemplateResolutionError, match="must provide a chat template"):
        make().chat([USER])


def test_chat_continues_a_message(make):
    llm = make()
    messages = [USER, {"role": "assistant", "content": "Sure, "}]
    options = {"continue_final_message": True, "use_tqdm": False}
    (output,) = llm.chat(messages, add_generation_prompt=False, **options)
    assert output.prompt == "<s>user: Hi\n<s>assistant: Sure, "
    with pytest.raises(ValidationError, match="not compatible"):
        llm.chat(messages, **options)
