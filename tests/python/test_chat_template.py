"""Chat templates: the text and the ids are those of transformers' apply_chat_template."""

from pathlib import Path

import fake_core  # noqa: F401
import pytest
import text_models
from octavo import ValidationError
from octavo.chat import ChatOptions, render_chat
from octavo.chat_template import (
    ChatTemplateResolutionError,
    content_format,
    load_chat_template,
    render_conversation,
    resolve_chat_template,
)
from octavo.tokenizer import load_tokenizer

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = """{% if messages[0]['role'] == 'system' %}
    {% set loop_messages = messages[1:] %}
    {% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}
{% else %}
    {% set loop_messages = messages %}{% set system = '' %}
{% endif %}
{%- for message in loop_messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Conversation roles must alternate user/assistant/...') }}
    {% endif %}
    {% if message['role'] == 'user' %}
        {{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'] | trim }}
        {{- ' [/INST]' }}
    {% else %}
        {% generation %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endgeneration %}
    {% endif %}
{% endfor %}"""
FEATURES = """{%- set ns = namespace(count=0, seen=[]) -%}
{%- for message in messages -%}
  {%- if message.role == 'system' %}{% continue %}{% endif -%}
  {%- set ns.count = ns.count + 1 -%}
  {{ loop.index }}:{{ message.content | tojson }}|{{ message | tojson(indent=2) }}
  {%- if ns.count > 3 %}{% break %}{% endif -%}
{%- endfor -%}
{{ tools | tojson if tools else 'none' }} {{ dict(a=1) | tojson }} {{ unset_name is defined }}
{{ style | default('plain') }} {{ strftime_now('%Y') | length }} {{ '<&>' | tojson }}"""
PARTS = """{% for message in messages %}{{ message.role }}: {% if message.content is string -%}
{{ message.content }}{% else %}{% for part in message.content %}[{{ part.text }}]{% endfor %}
{% endif %}{% endfor %}"""

TEMPLATES = {"chatml": CHATML, "llama2": LLAMA2, "features": FEATURES, "parts": PARTS}

USER = {"role": "user", "content": "Hi <b>&</b> “there”, ünï\n"}
ASSISTANT = {"role": "assistant", "content": "  Hello! "}
SYSTEM = {"role": "system", "content": "Be <brief>."}
CONVERSATIONS = [
    [USER],
    [SYSTEM, USER],
    [USER, ASSISTANT, USER],
    [SYSTEM, USER, ASSISTANT, USER, ASSISTANT],
    [{**USER, "name": None, "extra": {"nested": [1, 2.5, True, None]}}],
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    backend = text_models.byte_level(
        specials=("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
    )
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return text_models.save(backend, tmp_path_factory.mktemp("chat"), config, model_type="llama")


@pytest.fixture(scope="module")
def ours(directory):
    return load_tokenizer(str(directory))


@pytest.fixture(scope="module")
def theirs(directory):
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(directory))


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("generation_prompt", [True, False])
def test_equal_to_transformers(ours, theirs, name, conversation, generation_prompt):
    options = {"chat_template": TEMPLATES[name], "add_generation_prompt": generation_prompt}
    text = theirs.apply_chat_template(conversation, tokenize=False, **options)
    assert ours.apply_chat_template(conversation, tokenize=False, **options) == text
    ids = theirs.apply_chat_template(conversation, return_dict=False, **options)
    assert ours.apply_chat_template(conversation, **options) == ids


@pytest.mark.parametrize("name", ["chatml", "llama2", "parts"])
def test_continued_message(ours, theirs, name):
    for last in ("Sure, ", "  Sure", "S", "two\nlines \n"):
        conversation = [USER, {"role": "assistant", "content": last}]
        options = {
            "chat_template": TEMPLATES[name],
            "continue_final_message": True,
            "tokenize": False,
        }
        text = theirs.apply_chat_template(conversation, **options)
        assert ours.apply_chat_template(conversation, **options) == text


def test_tools_and_variables(ours, theirs):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"x": "<int>"}}}
    options = {"chat_template": FEATURES, "tools": [tool], "style": "fancy", "tokenize": False}
    text = theirs.apply_chat_template([USER], **options)
    assert ours.apply_chat_template([USER], **options) == text
    assert "fancy" in text
    assert '"<int>"' in text


def test_errors_of_a_template(ours):
    with pytest.raises(ValidationError, match="Conversation roles must alternate"):
        ours.apply_chat_template([ASSISTANT], LLAMA2)
    with pytest.raises(ValidationError, match="chat template: "):
        ours.apply_chat_template([USER], "{% for %}")
    with pytest.raises(ValidationError, match="chat template: "):
        ours.apply_chat_template([USER], "{{ messages[0].content + 1 }}")
    with pytest.raises(ValidationError, match="chat template: "):
        ours.apply_chat_template([USER], "{{ undefined_name.attribute }}")


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ namespace(__init__=1) }}",
        "{{ cycler.__init__.__globals__ }}",
    ],
)
def test_the_sandbox_holds(ours, attack):
    with pytest.raises(ValidationError, match="chat template: "):
        ours.apply_chat_template([USER], attack, tokenize=False)


def test_the_callers_messages_are_not_changed(ours):
    conversation = [dict(USER), {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]
    ours.apply_chat_template(conversation, PARTS, continue_final_message=True, tokenize=False)
    assert conversation[1] == {"role": "assistant", "content": [{"type": "text", "text": "a"}]}


def test_contradictions_and_empty_conversations(ours):
    with pytest.raises(ValidationError, match="are not compatible"):
        render_conversation(
            [ASSISTANT], CHATML, add_generation_prompt=True, continue_final_message=True
        )
    with pytest.raises(ValidationError, match="no content to continue"):
        render_conversation([{"role": "x"}], CHATML, continue_final_message=True)
    with pytest.raises(ValidationError, match="at least one message"):
        ours.apply_chat_template([], CHATML)
    with pytest.raises(TypeError, match="dictionaries"):
        ours.apply_chat_template(["Hi"], CHATML)


# Which template.


def test_resolution(ours, monkeypatch):
    with pytest.raises(ChatTemplateResolutionError) as caught:
        resolve_chat_template(ours)
    assert str(caught.value).startswith(
        "As of transformers v4.44, default chat template is no longer allowed, so you must "
        "provide a chat template if the tokenizer does not define one."
    )
    assert "LLM(chat_template=" in str(caught.value)
    assert resolve_chat_template(ours, "X") == "X"
    monkeypatch.setattr(ours, "chat_template", {"default": "D", "tool_use": "T"})
    assert resolve_chat_template(ours) == "D"
    assert resolve_chat_template(ours, None, [{}]) == "T"
    assert resolve_chat_template(ours, "tool_use") == "T"
    assert resolve_chat_template(ours, "{{ 1 }}") == "{{ 1 }}"
    monkeypatch.setattr(ours, "chat_template", {"a": "A", "b": "B"})
    with pytest.raises(ChatTemplateResolutionError, match="no default"):
        resolve_chat_template(ours)


def test_loading(tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text("{{ 1 }}")
    assert load_chat_template(path) == load_chat_template(str(path)) == "{{ 1 }}"
    assert load_chat_template("{{ 2 }}") == "{{ 2 }}"
    assert load_chat_template(None) is None
    assert load_chat_template("plain", is_literal=True) == "plain"
    with pytest.raises(ValidationError, match="looks like a file path, but it failed to be opened"):
        load_chat_template("no/such/file.jinja")
    with pytest.raises(ValidationError, match="looks like a file path"):
        load_chat_template(tmp_path / "{}")
    with pytest.raises(TypeError):
        load_chat_template(path, is_literal=True)


# Conversations to prompts.


def test_content_formats(ours):
    assert [content_format(TEMPLATES[name]) for name in TEMPLATES] == [
        "string", "string", "string", "openai",
    ]  # fmt: skip
    alias = (
        "{% for m in messages %}{% set c = m['content'] %}{% for x in c %}{% endfor %}{% endfor %}"
    )
    assert content_format(alias) == "openai"
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}]
    (prompt,) = render_chat(parts, ours, ChatOptions(chat_template=CHATML))
    assert prompt["prompt"] == "<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n"
    (prompt,) = render_chat(parts[:1], ours, ChatOptions(chat_template=PARTS))
    assert "[a]" in prompt["prompt"]
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]
    with pytest.raises(ValidationError, match="Unsupported chat content part type: 'image_url'"):
        render_chat(image, ours, ChatOptions(chat_template=CHATML))


def test_one_or_many_conversations(ours):
    options = ChatOptions(chat_template=CHATML)
    one, many = render_chat([USER], ours, options), render_chat([[USER], [SYSTEM]], ours, options)
    assert len(one) == 1
    assert len(many) == 2
    assert many[0] == one[0]
    assert render_chat([], ours, options) == []
    assert one[0]["prompt_token_ids"][0] != ours.bos_token_id
    for wrong in ("Hi", {"role": "user"}, [USER, [USER]]):
        with pytest.raises(TypeError, match="messages should"):
            render_chat(wrong, ours, options)


def test_never_a_second_bos(ours):
    (prompt,) = render_chat([USER], ours, ChatOptions(chat_template=LLAMA2))
    assert prompt["prompt_token_ids"].count(ours.bos_token_id) == 1


def test_template_kwargs(ours):
    options = ChatOptions(
        chat_template="{{ style }}{{ messages | length }}", template_kwargs={"style": "s", "b": 1}
    )
    assert render_chat([USER], ours, options)[0]["prompt"] == "s1"
    for name in ("chat_template", "tokenize"):
        with pytest.raises(ValidationError, match=f"must not hold '{name}'"):
            render_chat([USER], ours, ChatOptions(template_kwargs={name: "x"}))
    with pytest.raises(ValidationError, match="content_format must be one of"):
        render_chat([USER], ours, ChatOptions(content_format="novel"))
