"""Conversations to prompts: the forms of messages, contents and tools, and LLM's chat methods."""

from __future__ import annotations

import warnings

import fake_core  # noqa: F401
import fake_llm
import pytest
import text_models
from octavo import SamplingParams, ValidationError
from octavo.chat import ChatOptions, render_chat
from octavo.chat_template import ChatTemplateResolutionError, content_format, template_variables
from octavo.tokenizer import load_tokenizer

PLAIN = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"
PARTS = (
    "{% for m in messages %}{{ m.role }}:{% for part in m.content %}[{{ part.text }}]{% endfor %}"
    "{% endfor %}"
)
EITHER = (
    "{% for m in messages %}{{ m.role }}:{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for part in m.content %}[{{ part.text }}]{% endfor %}{% endif %};{% endfor %}"
)
WHOLE = "{{ messages | tojson }}"
BOS = "{{ bos_token }}" + PLAIN
USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    backend = text_models.byte_level(specials=("<unk>", "<s>", "</s>"))
    config = {"bos_token": "<s>", "eos_token": "</s>"}
    return load_tokenizer(str(text_models.save(backend, tmp_path_factory.mktemp("t"), config)))


@pytest.fixture
def render(tokenizer):
    """render(messages, template, **options) -> the text of one conversation."""

    def one(messages, template=PLAIN, **options):
        (prompt,) = render_chat(messages, tokenizer, ChatOptions(chat_template=template, **options))
        return prompt["prompt"]

    return one


def with_content(content, role="user"):
    return [{"role": role, "content": content}]


# Contents.


@pytest.mark.parametrize(
    "part",
    [
        "a",
        {"type": "text", "text": "a"},
        {"type": "input_text", "text": "a"},
        {"type": "output_text", "text": "a", "annotations": []},
        {"type": "refusal", "refusal": "a"},
        {"type": "thinking", "thinking": "a"},
        {"type": "tool_reference", "name": "a"},
        {"text": "a"},
        {"refusal": "a"},
        {"thinking": "a"},
    ],
)
def test_parts_of_text(render, part):
    assert render(with_content([part, "b"])) == "user=a\nb;"
    if part != {"type": "tool_reference", "name": "a"}:
        assert render(with_content([part, "b"]), PARTS) == "user:[a][b]"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "x"}},
        {"type": "image_pil", "image_pil": None},
        {"image_url": "x"},
        {"audio_url": "x"},
    ],
)
def test_parts_of_media_are_refused(render, part):
    kind = part.get("type") or next(iter(part))
    for template in (PLAIN, PARTS):
        with pytest.raises(ValidationError) as caught:
            render(with_content(["a", part]), template)
        assert str(caught.value).startswith(f"Unsupported chat content part type: {kind!r}. ")
        assert "text only" in str(caught.value)
        assert caught.value.parameter == "type"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"type": "hologram", "data": 1}], "Unsupported chat content part type: 'hologram'"),
        ([{"type": 3}], "Unsupported chat content part type: 3"),
        ([{"data": 1}], "Missing 'type' field"),
        ([{"type": "input_text"}], "needs a string 'text', got NoneType"),
        ([{"type": "text", "text": 3}], "needs a string 'text', got int"),
        ([7], "must be text or a dictionary, got int"),
        (7, "must be text or a list of parts, got int"),
        ({"type": "text", "text": "a"}, "must be text or a list of parts, got dict"),
    ],
)
def test_wrong_contents(render, content, message):
    with pytest.raises(ValidationError, match=message):
        render(with_content(content))


def test_parts_without_text_are_left_out(render):
    parts = [{"type": "text", "text": None}, "a", {"type": "refusal", "refusal": None}]
    assert render(with_content(parts)) == "user=a;"
    assert render(with_content([])) == "user=;"


def test_content_formats(render):
    found = [content_format(template) for template in (PLAIN, PARTS, EITHER, WHOLE)]
    assert found == ["string", "openai", "openai", "string"]
    alias = (
        "{% for m in messages %}{% set c = m['content'] %}{% for x in c %}{% endfor %}{% endfor %}"
    )
    assert content_format(alias) == "openai"
    # A template for parts alone gets parts; one that tells them apart gets what the caller has.
    assert render([USER], PARTS) == "user:[Hi]"
    assert render([USER], EITHER) == "user:Hi;"
    assert render(with_content(["a", "b"]), EITHER) == "user:[a][b];"
    forced = {"chat_template_content_format": "openai"}
    assert render([USER], EITHER, **forced) == "user:[Hi];"
    forced = {"chat_template_content_format": "string"}
    assert render(with_content(["a", "b"]), EITHER, **forced) == "user:a\nb;"
    with pytest.raises(ValidationError, match="content_format must be one of"):
        render([USER], chat_template_content_format="novel")


def test_a_message_without_content(render):
    """As in transformers; where that fails, as in vLLM."""
    calls = [{"function": {"name": "f", "arguments": {}}}]
    for extra in ({}, {"content": None}):
        message = {"role": "assistant", "tool_calls": calls, **extra}
        assert '"content"' not in render([message], WHOLE)
        adding = "{{ '<' + messages[0].content + '>' }}"
        assert render([message], adding) == "<>"
    with pytest.raises(ValidationError, match="is undefined"):
        render([USER], "{{ nothing.at_all }}")


# Roles and fields.


@pytest.mark.parametrize("message", [{"content": "a"}, {"role": None}, {"role": 3, "content": ""}])
def test_a_message_needs_a_role(render, message):
    with pytest.raises(ValidationError, match="a message needs a role"):
        render([message])


def test_any_role_and_field_reaches_the_template(render):
    message = {"role": "critic", "content": "a", "name": "Ada", "extra": [1, None]}
    assert render([message], WHOLE) == (
        '[{"role": "critic", "content": "a", "name": "Ada", "extra": [1, null]}]'
    )


def test_developers_speak_for_the_system(render):
    developer = {"role": "developer", "content": ["Use", "tools"], "tools": [{}]}
    assert render([developer, USER]) == "system=Use\ntools;user=Hi;"
    chat = [SYSTEM, USER, developer, USER]
    assert render(chat) == "system=Be brief\n\nUse\ntools;user=Hi;user=Hi;"
    assert render(chat, PARTS) == "system:[Be brief\n\nUse\ntools]user:[Hi]user:[Hi]"
    knowing = PLAIN + "{# developer #}"
    assert render([developer, USER], knowing) == "developer=Use\ntools;user=Hi;"
    late = [USER, SYSTEM]  # no developer: the order is the caller's
    assert render(late) == "user=Hi;system=Be brief;"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"x": [1, "é"]}', '{"x": [1, "é"]}'),
        ({"x": 1}, '{"x": 1}'),
        ("[1]", "[1]"),
        ("not JSON", "{}"),
        ("", "{}"),
        (None, "{}"),
        (5, "{}"),
    ],
)
def test_arguments_of_calls_are_parsed(render, arguments, expected):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    template = "{{ messages[0].tool_calls[0].function.arguments | tojson }}"
    assert render([message], template) == expected
    assert call["function"]["arguments"] == arguments  # the caller's own is not changed


def test_calls(render):
    seen = "{{ messages[0].tool_calls is defined }}"
    for calls in ([], None):
        message = {"role": "assistant", "content": "a", "tool_calls": calls}
        assert render([message], seen) == "False"
    for wrong in ("x", [1], {"a": 1}):
        message = {"role": "assistant", "content": "a", "tool_calls": wrong}
        with pytest.raises(ValidationError, match="tool_calls must be a list"):
            render([message], seen)


def test_results_of_tools_are_text(render):
    content = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    message = {"role": "tool", "tool_call_id": "1", "content": content}
    assert render([message], EITHER) == "tool:a\nb;"
    named = PARTS.replace("part.text", "part.name")
    content = [{"type": "tool_reference", "name": "f"}]
    assert render([{**message, "content": content}], named) == "tool:[f]"


def test_reasoning_has_both_names(render):
    template = "{{ messages[0].reasoning }}|{{ messages[0].reasoning_content }}"
    for name in ("reasoning", "reasoning_content"):
        message = {"role": "assistant", "content": "a", name: "because"}
        assert render([message], template) == "because|because"


# Options.


def test_template_kwargs(render):
    template = "{{ style }}{{ messages | length }}{{ documents | length if documents }}"
    documents = [{"title": "t", "text": "x"}]
    kwargs = {"style": "s", "unknown": object(), "documents": documents}
    assert render([USER], template, chat_template_kwargs=kwargs) == "s11"
    assert template_variables(template) == {"style", "messages", "documents"}
    for name in ("chat_template", "tokenize"):
        with pytest.raises(ValidationError, match=f"must not hold '{name}'"):
            render([USER], chat_template_kwargs={name: "x"})
    with pytest.raises(ValidationError, match="documents must be a list of dictionaries"):
        render([USER], template, chat_template_kwargs={"documents": ["text"]})
    # What a call says of its own parameters counts.
    template = "{{ add_generation_prompt }}{{ messages | length }}{{ tools | length if tools }}"
    kwargs = {"add_generation_prompt": False, "messages": [], "tools": [{}, {}]}
    assert render([USER], template, chat_template_kwargs=kwargs) == "True12"
    assert render([USER], template, chat_template_kwargs=kwargs, tools=[{}]) == "True11"


def test_tools(render):
    template = "{{ tools | tojson if tools else 'none' }}"
    assert render([USER], template, tools=[{"type": "function"}]) == '[{"type": "function"}]'
    assert render([USER], template) == "none"
    for wrong in ([test_tools], ["f"], {"type": "function"}):
        with pytest.raises(ValidationError, match="tools must be a list of dictionaries"):
            render([USER], template, tools=wrong)
    with pytest.warns(UserWarning, match="does not use tools"):
        render([USER], tools=[{}])


def test_named_templates(tokenizer, monkeypatch):
    named = {
        "default": "D{{ 1 }}",
        "tool_use": "T {{ tools | length }}",
        "rag": "R {{ documents | length }}",
    }
    monkeypatch.setattr(tokenizer, "chat_template", named)

    def text(**options):
        (prompt,) = render_chat([USER], tokenizer, ChatOptions(**options))
        return prompt["prompt"]

    assert text() == "D1"
    assert text(tools=[{}]) == "T 1"
    kwargs = {"documents": [{}, {}]}
    assert text(chat_template="rag", chat_template_kwargs=kwargs) == "R 2"
    assert text(chat_template="{{ 1 }}") == "1"


def test_a_name_that_is_no_template(render):
    with pytest.warns(UserWarning, match="without any Jinja"):
        assert render([USER], "templates/own.jinja") == "templates/own.jinja"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert render([USER], "{{ 1 }}") == "1"


def test_no_template(tokenizer):
    with pytest.raises(ChatTemplateResolutionError, match="must provide a chat template") as caught:
        render_chat([USER], tokenizer, ChatOptions())
    assert "chat(..., chat_template=...)" in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_errors_of_templates_are_those_of_requests(render):
    with pytest.raises(ValidationError, match="chat template: roles must alternate"):
        render([USER], "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(ValidationError, match="chat template: "):
        render([USER], "{% if %}")


# Conversations to prompts.


def test_one_or_many_conversations(tokenizer):
    options = ChatOptions(chat_template=PLAIN)
    one = render_chat([USER], tokenizer, options)
    many = render_chat([[USER], (SYSTEM,)], tokenizer, options)
    assert [len(one), len(many)] == [1, 2]
    assert many[0] == one[0]
    assert render_chat([], tokenizer, options) == []
    for wrong in ("Hi", {"role": "user"}, [USER, [USER]], 3):
        with pytest.raises(TypeError, match="messages should"):
            render_chat(wrong, tokenizer, options)
    with pytest.raises(ValidationError, match="at least one message"):
        render_chat([[USER], []], tokenizer, options)


def test_never_a_second_bos(tokenizer):
    for template, count in ((BOS, 1), (PLAIN, 0)):
        (prompt,) = render_chat([USER], tokenizer, ChatOptions(chat_template=template))
        assert prompt["prompt_token_ids"].count(tokenizer.bos_token_id) == count


def test_continued_messages(render):
    chat = [USER, {"role": "assistant", "content": "Sure, "}]
    options = {"add_generation_prompt": False, "continue_final_message": True}
    assert render(chat, **options) == "user=Hi;assistant=Sure, "
    chat = [USER, {"role": "assistant", "content": ["One", "two "]}]
    assert render(chat, **options) == "user=Hi;assistant=One\ntwo "
    assert render(chat, PARTS, **options) == "user:[Hi]assistant:[One][two "
    with pytest.raises(ValidationError, match="not compatible"):
        render(chat, continue_final_message=True)


# The methods of LLM.


@pytest.fixture
def llm(monkeypatch, tmp_path):
    backend = fake_llm.small_backend()
    make = fake_llm.maker(monkeypatch, fake_llm.save_model(backend, tmp_path), backend)
    with make("Hello") as llm:
        yield llm


def test_chat_enqueue_and_stream_agree(llm):
    params = SamplingParams(max_tokens=20)
    chats = [[USER], [SYSTEM, USER]]
    outputs = llm.chat(chats, params, use_tqdm=False)
    llm.enqueue_chat(chats, params, use_tqdm=False)
    enqueued = llm.wait_for_completion(use_tqdm=False)
    streamed = list(llm.stream_chat(chats, params))
    for index, output in enumerate(outputs):
        assert output.prompt.startswith("<s>")
        assert output.prompt_token_ids == enqueued[index].prompt_token_ids
        mine = [delta for delta in streamed if delta.prompt_index == index]
        assert mine[0].prompt == output.prompt
        assert "".join(d.outputs[0].text for d in mine) == output.outputs[0].text == "Hello"
    assert llm.chat([], use_tqdm=False) == llm.enqueue_chat([], use_tqdm=False) == []
    assert list(llm.stream_chat([])) == []


def test_options_reach_every_method(llm):
    options = {
        "chat_template": "{{ style }}{{ tools | length }}{{ messages[-1].content }}",
        "chat_template_content_format": "string",
        "add_generation_prompt": False,
        "continue_final_message": True,
        "tools": [{}],
        "chat_template_kwargs": {"style": "s"},
    }
    (output,) = llm.chat([USER], use_tqdm=False, **options)
    assert output.prompt == "s1Hi"
    llm.enqueue_chat([USER], use_tqdm=False, **options)
    assert llm.wait_for_completion(use_tqdm=False)[0].prompt == "s1Hi"
    assert next(llm.stream_chat([USER], **options)).prompt == "s1Hi"
    with pytest.raises(TypeError, match="novel"):
        llm.stream_chat([USER], novel=1)


def test_refused_conversations_as_results(llm):
    """One that the template or the engine refuses keeps none of the others back."""
    template = "{% if messages|length > 1 %}{{ raise_exception('too many') }}{% endif %}Hi"
    chats = [[USER], [USER, USER], [{"content": "no role"}], [USER]]
    options = {"chat_template": template, "on_error": "return"}
    outputs = llm.chat(chats, SamplingParams(max_tokens=20), use_tqdm=False, **options)
    assert [output.outputs[0].finish_reason for output in outputs] == [
        "stop", "error", "error", "stop",
    ]  # fmt: skip
    assert "too many" in outputs[1].outputs[0].error
    assert "needs a role" in outputs[2].outputs[0].error
    assert (outputs[1].prompt, outputs[1].prompt_index) == (None, 1)
    streamed = list(llm.stream_chat(chats, SamplingParams(max_tokens=20), **options))
    ends = {o.prompt_index: o.outputs[0].finish_reason for o in streamed if o.finished}
    assert ends == {0: "stop", 1: "error", 2: "error", 3: "stop"}
    with pytest.raises(ValidationError, match="too many"):
        llm.chat(chats, use_tqdm=False, chat_template=template)
    # What is wrong with all of them is raised.
    for wrong in ({"chat_template": "{% if %}"}, {"tools": 3}, {"on_error": "ignore"}):
        with pytest.raises(ValidationError):
            llm.chat(chats, use_tqdm=False, **{**options, **wrong})
    with pytest.raises(TypeError, match="messages should"):
        llm.chat("Hi", use_tqdm=False, **options)
    assert not llm.fake.live
