"""Chat templates: the text and the ids are those of transformers' apply_chat_template."""

from pathlib import Path

import fake_core  # noqa: F401
import pytest
import text_models
from octavo import ValidationError
from octavo.chat_template import (
    ChatTemplateResolutionError,
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


def test_documents(ours, theirs):
    options = {"chat_template": "{{ documents | tojson }}", "tokenize": False}
    for documents in (None, [{"title": "t", "text": "é"}]):
        text = theirs.apply_chat_template([USER], documents=documents, **options)
        assert ours.apply_chat_template([USER], documents=documents, **options) == text


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


def test_built_in_templates(tmp_path, monkeypatch):
    """By vLLM's names and by short ones; a file of that name goes before."""
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    chatml = load_chat_template("template_chatml.jinja")
    assert chatml == load_chat_template("chatml")
    assert render_conversation(chat, chatml, add_generation_prompt=True) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    examples = Path(__file__).resolve().parents[2] / "examples" / "templates"
    assert chatml == load_chat_template(examples / "chatml.jinja")
    basic = load_chat_template("template_basic.jinja")
    assert basic == load_chat_template("basic")
    assert render_conversation(chat, basic) == "HiYes?"
    for path in (Path("chatml"), "../chat_template.py", "novel", "", "x" * 5000, "chat\0ml"):
        with pytest.raises(ValidationError, match="looks like a file path"):
            load_chat_template(path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chatml").write_text("{{ 3 }}")
    assert load_chat_template("chatml") == "{{ 3 }}"


def test_what_templates_use_is_as_in_jinja(theirs):
    """Everything that is guarded, where it asks for little."""
    template = """{% set text = messages[0].content %}{{ text * 2 }}
{{ text ~ 1 ~ none ~ [1, 'a'] }}
{{ 2 ** 10 }} {{ 7 % 3 }} {{ '%5.2f|%-4s|%s' % (1.5, 'a', [1]) }} {{ '%s!' | format(text) }}
{{ '{:>5} {a}'.format(1, a=text) }} {{ '{a}'.format_map({'a': 1}) }} {{ text[1:] }}
{{ text[::-1] }}
{{ text.split('\n') }} {{ text.split() }} {{ text.rsplit(' ', 1) }} {{ text.splitlines() }}
{{ text.strip(' \n') | trim }} {{ text.replace('a', 'bb') | replace('b', 'cc', 1) }}
{{ ', '.join(['a', 'b']) }} {{ [1, 2] | join('-') }} {{ [{'a': 1}] | join('', 'a') }}
{{ 'ab' | join(',') }}
{{ 'a'.center(5) }}{{ 'a' | center(6) }}{{ 'a'.ljust(3) }}{{ '7'.zfill(3) }}
{{ text | indent(3, true) }}
{{ [3, 1, 2] | sort | list }} {{ [1, 1, 2] | unique | list }}
{{ [1, 2, 3] | batch(2, 0) | list }}
{{ [1, 2, 3] | slice(2) | list }} {{ [1, 2] | sum }} {{ ['a'] | map('upper') | list }}
{{ [2, 1] | min }}
{{ messages | map(attribute='role') | list }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ messages | groupby('role') | list | length }} {{ {'b': 1, 'a': 2} | dictsort }}
{{ {'a': 1}.items() | list }}
{{ 1.25 | round(1) }} {{ '12' | int }} {{ 'a b' | title }} {{ 'a b c' | wordcount }}
{{ '<a>' | striptags }}
{{ [1, {'a': [none, true]}] | tojson(indent=2) }}
{{ {'a': 1} | tojson(separators=(',', ':')) }} {{ [1] | pprint }}
{% for a, b in [(1, 2), (3, 4)] if a in [1, 3] %}{{ a }}{{ b }}{{ loop.length }}
{{ loop.last }}{% endfor %}
{% for x in [1, 2] recursive %}{{ x }}{{ loop([3]) if loop.depth < 3 }}{% endfor %}
{% macro m(a, b=2) %}{{ a }}{{ b }}{{ caller() if caller }}{{ varargs }}{{ kwargs }}
{% endmacro %}{{ m(1, 3, 4, c=5) }}
{% call m(9) %}inner{% endcall %}{% filter upper %}up{% endfilter %}
{% set c %}block{% endset %}{{ c }}
{% set ns = namespace(n=0, l=[]) %}{% for i in range(5) %}{% set ns.n = ns.n + i %}
{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.n }}{{ ns.l }}
{{ dict(a=1, **{'b': 2}) }} {{ dict([(1, 2)]) }} {{ dict.fromkeys([1, 2], 0) }}
{{ {(1, 2): 3}[(1, 2)] }}
{{ 1 == 1.0 and 'a' in text or 2 is in [1] }} {{ [1, [2]] == [1, [2]] }}
{{ 5 is divisibleby(5) }} {{ 1 < 2 < 3 }}
{% autoescape true %}{{ '<' ~ '>' }}{{ '<' | safe }}{{ ('<b>{}'|safe).format('<') }}
{% endautoescape %}
{% with a=1, b=[1, 2] %}{{ a + b[0] }}{% endwith %} {{ cycler('a', 'b').next() }}
{{ joiner(',')() }}"""
    conversation = [{"role": "user", "content": " Have a\nnice day "}, ASSISTANT]
    text = theirs.apply_chat_template(conversation, chat_template=template, tokenize=False)
    assert render_conversation(conversation, template) == text
    assert len(text) > 700
