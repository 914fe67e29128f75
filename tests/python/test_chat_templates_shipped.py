"""Token-exact chat: the ids are those of transformers, with the template of SmolLM2 and with those
in examples/templates; and those are what their formats say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chat_corpus
import fake_core
import pytest
from chat_corpus import WEATHER, assistant, call, result, system, user
from octavo import LLM, SamplingParams, ValidationError
from octavo.chat import ChatOptions, render_chat
from octavo.entrypoints.chat_utils import load_chat_template
from octavo.tokenizer import load_tokenizer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHIPPED = ("alpaca", "chatml", "llama2", "llama3", "mistral", "vicuna")
needs_engine = pytest.mark.skipif(fake_core.FAKED, reason="needs the compiled engine")


def shipped(name: str) -> str:
    template = load_chat_template(EXAMPLES / "templates" / f"{name}.jinja")
    assert template is not None
    return template


@pytest.fixture(scope="module")
def ours(smollm2: Path) -> Any:
    return load_tokenizer(str(smollm2))


@pytest.fixture(scope="module")
def theirs(smollm2: Path) -> Any:
    """transformers' conversion of the file, with the splitting of the model's tokenizer.json: the
    conversion takes every byte-level model for GPT-2, which does not split numbers into digits."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoTokenizer
    tokenizer = auto.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


def expected_ids(tokenizer: Any, messages: Any, template: str | None, options: Any) -> Any:
    """The ids, or None where the template refuses the conversation."""
    import jinja2

    try:
        encoded = tokenizer.apply_chat_template(
            messages, chat_template=template, return_dict=True, **options
        )
    except (jinja2.TemplateError, ValueError):
        return None
    return list(encoded["input_ids"])


@pytest.mark.filterwarnings("ignore:the chat template does not use tools")
@pytest.mark.parametrize("name", ["the model's own", *SHIPPED])
def test_ids_equal_those_of_transformers(ours: Any, theirs: Any, name: str) -> None:
    template = shipped(name) if name in SHIPPED else None
    corpus = chat_corpus.conversations()
    num_equal = 0
    for messages, options in corpus:
        expected = expected_ids(theirs, messages, template, options)
        chat_options = ChatOptions(
            chat_template=template, **{"add_generation_prompt": False, **options}
        )
        if expected is None:
            with pytest.raises(ValidationError):
                render_chat(messages, ours, chat_options)
            continue
        (prompt,) = render_chat(messages, ours, chat_options)
        assert prompt["prompt_token_ids"] == expected, (messages, options)
        num_equal += 1
    assert num_equal >= (50 if name in ("the model's own", "chatml", "llama3") else 40)
    assert len(corpus) >= 60


@needs_engine
def test_the_engine_gets_these_ids(smollm2: Path, theirs: Any) -> None:
    params = SamplingParams(temperature=0, max_tokens=1)
    corpus = [case for case in chat_corpus.conversations() if "tools" not in case[1]][:12]
    with LLM(str(smollm2), max_model_len=1024) as llm:
        for messages, options in corpus:
            options = {"add_generation_prompt": False, **options}
            (output,) = llm.chat(messages, params, use_tqdm=False, **options)
            assert output.prompt_token_ids == expected_ids(theirs, messages, None, options)
        prompted = [messages for messages, options in corpus if "add_gen" in str(options)]
        outputs = llm.chat(prompted, params, use_tqdm=False)
        ids = [expected_ids(theirs, m, None, {"add_generation_prompt": True}) for m in prompted]
        assert [output.prompt_token_ids for output in outputs] == ids


# The formats, as their makers describe them.

TALK = [system("SYS"), user("U1"), assistant("A1"), user("U2")]
EXPECTED = {
    "chatml": (
        "<|im_start|>system\nSYS<|im_end|>\n<|im_start|>user\nU1<|im_end|>\n"
        "<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nU2<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    "llama2": "<s>[INST] <<SYS>>\nSYS\n<</SYS>>\n\nU1 [/INST] A1 </s><s>[INST] U2 [/INST]",
    "llama3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nSYS<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nU1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nU2<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "mistral": "<s>[INST] U1[/INST] A1</s>[INST] SYS\n\nU2[/INST]",
    "alpaca": (
        "<s>SYS\n\n### Instruction:\nU1\n\n### Response:\nA1</s>\n\n"
        "### Instruction:\nU2\n\n### Response:\n"
    ),
    "vicuna": "<s>SYS USER: U1 ASSISTANT: A1</s>USER: U2 ASSISTANT:",
}


class Special:
    """A tokenizer of which only the names of special tokens matter."""

    def __init__(self) -> None:
        self.chat_template = None
        self.special_tokens_map = {"bos_token": "<s>", "eos_token": "</s>"}

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return []


def render(name: str, messages: Any, **options: Any) -> str:
    chat_options = ChatOptions(chat_template=shipped(name), **options)
    (prompt,) = render_chat(messages, Special(), chat_options)  # type: ignore[arg-type]
    return prompt["prompt"]


@pytest.mark.parametrize("name", SHIPPED)
def test_formats(name: str) -> None:
    assert render(name, TALK) == EXPECTED[name]
    continued = render(name, TALK[:3], add_generation_prompt=False, continue_final_message=True)
    assert EXPECTED[name].replace("SYS\n\nU2", "U2").startswith(continued) or name == "mistral"
    assert continued.endswith("A1")


def test_preambles() -> None:
    assert render("alpaca", [user("U")]) == (
        "<s>Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nU\n\n### Response:\n"
    )
    assert render("alpaca", [user("U"), {"role": "input", "content": "I"}]) == (
        "<s>Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nU\n\n### Input:\nI\n\n### Response:\n"
    )
    assert render("vicuna", [user("U")]) == (
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions. USER: U ASSISTANT:"
    )


def test_tools_of_llama3() -> None:
    messages = [user("U"), call("f", '{"x": 1}'), result("R")]
    text = render("llama3", messages, tools=[WEATHER])
    assert text.count("Given the following functions") == 1
    assert '    "type": "function",\n' in text
    assert "Do not use variables.\n\n{" in text
    assert "}\n\nU<|eot_id|>" in text
    assert text.endswith(
        '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "f", "parameters": {"x": 1}}'
        "<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\nR<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    two = {**messages[1], "tool_calls": messages[1]["tool_calls"] * 2}
    with pytest.raises(ValidationError, match="one tool call at a time"):
        render("llama3", [user("U"), two])


def test_tools_of_mistral() -> None:
    messages = [user("U"), call("f", {"x": 1}), result('{"r": 2}'), assistant("A"), user("V")]
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert render("mistral", messages, tools=tools) == (
        '<s>[INST] U[/INST][TOOL_CALLS] [{"name": "f", "arguments": {"x": 1}, "id": "abcdefgh1"}]'
        '</s>[TOOL_RESULTS] {"content": {"r": 2}, "call_id": "abcdefgh1"}[/TOOL_RESULTS] A</s>'
        '[AVAILABLE_TOOLS] [{"type": "function", "function": {"name": "f"}}][/AVAILABLE_TOOLS]'
        "[INST] V[/INST]"
    )
    with pytest.raises(ValidationError, match="nine letters or digits"):
        render("mistral", [user("U"), call("f", {}, id="1")])


def test_what_formats_cannot_say() -> None:
    for name in ("llama2", "mistral"):
        with pytest.raises(ValidationError, match="in turns"):
            render(name, [user("a"), user("b")])
        with pytest.raises(ValidationError, match="only as the first message"):
            render(name, [user("a"), assistant("b"), system("c")])
    for name in ("alpaca", "mistral", "vicuna"):
        with pytest.raises(ValidationError, match="knows the roles"):
            render(name, [user("a"), {"role": "critic", "content": "b"}])


def test_every_template_is_in_the_table() -> None:
    table = (EXAMPLES / "templates" / "README.md").read_text()
    files = {path.stem for path in (EXAMPLES / "templates").glob("*.jinja")}
    assert files == set(SHIPPED)
    assert all(f"`{name}.jinja`" in table for name in files)
