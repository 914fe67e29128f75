"""Renders conversations with a model's chat template, as transformers does.

Templates come with models and are not trusted: they run in jinja2's immutable sandbox, within
limits of time and size (see ``template_limits``), and see only plain JSON values. jinja2 is
imported when the first template is rendered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.errors import ValidationError, validation_error

if TYPE_CHECKING:
    from octavo.template_sandbox import LimitedEnvironment
    from octavo.tokenizer import Tokenizer

_NO_TEMPLATE = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a "
    "chat template if the tokenizer does not define one. Pass it as a Jinja string to "
    "chat(..., chat_template=...), or as a string or file to LLM(chat_template=...)."
)
_BUILT_IN = Path(__file__).with_name("chat_templates")
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
_MAX_ERROR = 10_000  # characters of a template's own message
_MAX_TIME_FORMAT = 1000
_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")


class ChatTemplateResolutionError(ValidationError):
    """The model has no chat template and none was passed."""


@dataclasses.dataclass(frozen=True)
class CompiledTemplate:
    """A template ready to be rendered, and what can be told from its source.

    Attributes:
        variables: the names that it uses and does not define.
        content_format: "openai" when it loops over the parts of a message's content, else "string".
        takes_text: whether it can tell a content that is text from a list of parts.
    """

    template: Any
    variables: frozenset[str]
    content_format: str
    takes_text: bool


def load_chat_template(chat_template: Path | str | None, *, is_literal: bool = False) -> str | None:
    """A template from a file, or the string itself when there is no such file.

    A name such as "chatml", or vLLM's "template_chatml.jinja", is a file of ``chat_templates``.
    Raises ValidationError for a string that looks like a path but cannot be opened.
    """
    if chat_template is None:
        return None
    if is_literal:
        if isinstance(chat_template, Path):
            raise TypeError("chat_template is expected to be read directly from its value")
        return chat_template
    try:
        return Path(chat_template).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        text = str(chat_template)
        if isinstance(chat_template, Path) or not any(char in text for char in "{}\n"):
            built_in = _BUILT_IN / (text if "." in text else f"template_{text}.jinja")
            if not isinstance(chat_template, Path) and built_in.parent == _BUILT_IN:
                with contextlib.suppress(OSError, ValueError):
                    return built_in.read_text(encoding="utf-8")
            raise validation_error(
                f"The supplied chat template ({text}) looks like a file path, but it failed to be "
                f"opened. Reason: {error}",
                parameter="chat_template",
            ) from error
        return text


def resolve_chat_template(
    tokenizer: Tokenizer | None,
    chat_template: str | None = None,
    tools: Sequence[Any] | None = None,
) -> str:
    """The template to use: the given one (or the model's one of that name), or the model's own.

    Raises ChatTemplateResolutionError where there is none.
    """
    own = tokenizer.chat_template if tokenizer is not None else None
    if isinstance(own, dict):
        if chat_template is not None:
            return own.get(chat_template, chat_template)
        name = "tool_use" if tools is not None and "tool_use" in own else "default"
        if name not in own:
            raise ChatTemplateResolutionError(
                "This model has multiple chat templates with no default; pass one of "
                f"{sorted(own)} as chat_template"
            )
        return own[name]
    template = chat_template if chat_template is not None else own
    if template is None:
        raise ChatTemplateResolutionError(_NO_TEMPLATE)
    return template


def render_conversation(
    messages: Sequence[Any],
    template: str,
    *,
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
    tools: Sequence[Any] | None = None,
    documents: Sequence[Any] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The text of one conversation. ``variables`` are what the template sees besides the messages.

    Raises ValidationError when the template refuses the conversation or is itself wrong.
    """
    if continue_final_message and add_generation_prompt:
        raise validation_error(
            "continue_final_message and add_generation_prompt are not compatible. Use "
            "continue_final_message when you want the model to continue the final message, and "
            "add_generation_prompt when you want it to start a new one."
        )
    compiled = compile_template(template)
    try:
        chat = _plain_messages(messages)
        continued = _tag_final_message(chat, template) if continue_final_message else None
        values = {str(k): plain_data(v) for k, v in (variables or {}).items()}
        documents = values.get("documents") if documents is None else documents
        values.update(
            messages=chat,
            tools=None if tools is None else plain_data(list(tools)),
            documents=None if documents is None else plain_data(list(documents)),
            add_generation_prompt=add_generation_prompt,
        )
    except RecursionError:
        raise validation_error("the conversation is nested too deeply") from None
    text = _guarded(lambda: _environment().render(compiled.template, values))
    return text if continued is None else _cut_at_tag(text, continued)


def compile_template(template: str) -> CompiledTemplate:
    """The template compiled; the last few are kept. Raises ValidationError for a wrong one."""
    if not isinstance(template, str):
        raise TypeError(f"a chat template should be a string, got {type(template).__name__}")
    return _guarded(lambda: _compile(template))


def template_variables(template: str) -> frozenset[str]:
    """The names that a template uses and does not define."""
    return compile_template(template).variables


def content_format(template: str) -> str:
    """ "openai" when the template loops over the parts of a message's content, else "string"."""
    return compile_template(template).content_format


def plain_data(value: Any) -> Any:
    """The value rebuilt from plain JSON types; anything else becomes a placeholder."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    if isinstance(value, Mapping):
        return {plain_data(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_data(item) for item in value]
    if isinstance(value, tuple):
        return tuple(plain_data(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: plain_data(item) for name, item in pairs}
    if callable(getattr(value, "model_dump", None)):
        return plain_data(value.model_dump())
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return plain_data(value.item())
    return f"<{type(value).__name__}>"


def _plain_messages(messages: Sequence[Any]) -> list[dict[str, Any]]:
    if not messages:
        raise validation_error("a conversation needs at least one message", parameter="messages")
    chat = []
    for message in messages:
        plain = plain_data(message)
        if not isinstance(plain, dict):
            raise TypeError(f"Chat messages should be dictionaries, got {type(message).__name__}")
        plain = {key: item for key, item in plain.items() if item is not None}
        reasoning = [plain[name] for name in _REASONING_FIELDS if name in plain]
        if reasoning:
            plain = {"thinking": reasoning[0], **plain, "reasoning_content": reasoning[0]}
        chat.append(plain)
    return chat


def _tag_final_message(chat: list[dict[str, Any]], template: str) -> str:
    """Marks the end of the final message; returns its text."""
    content = chat[-1].get("content")
    if content is None:
        raise validation_error(
            "continue_final_message is set but the final message has no content to continue"
        )
    if "content" not in template:
        raise validation_error(
            "continue_final_message is set but the chat template does not use message content"
        )
    if isinstance(content, str):
        chat[-1]["content"] = content + _TAG
        return content
    for part in reversed(content):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            text: str = part["text"]
            part["text"] = text + _TAG
            return text
    raise validation_error(
        "continue_final_message is set but the final message has no text to continue"
    )


def _cut_at_tag(text: str, final_message: str) -> str:
    if final_message.strip() not in text or _TAG.strip() not in text:
        raise validation_error(
            "continue_final_message is set but the final message does not appear in the chat "
            "after applying the chat template; the template may drop parts of it"
        )
    position = text.rindex(_TAG.strip())
    if text[position : position + len(_TAG)] == _TAG:
        return text[:position]
    return text[:position].rstrip()  # the template trims messages


def _is_content(node: Any) -> bool:
    from jinja2 import nodes

    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return False


def _mentions_content(node: Any) -> bool:
    from jinja2 import nodes

    if isinstance(node, nodes.CondExpr):
        return _mentions_content(node.expr1) or _mentions_content(node.expr2)
    return _is_content(node)


def _guarded(work: Callable[[], Any]) -> Any:
    """What the work gives; whatever a template makes it raise becomes a ValidationError."""
    import jinja2

    try:
        return work()
    except jinja2.TemplateError as error:
        raise ValidationError(f"chat template: {_shortened(error)}") from error
    except RecursionError:
        raise ValidationError(
            "chat template: it is nested too deeply, or calls itself too often"
        ) from None
    except Exception as error:  # a template can reach many kinds
        message = f"chat template: {type(error).__name__}: {_shortened(error)}"
        raise ValidationError(message) from error


def _shortened(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= _MAX_ERROR else f"{text[:_MAX_ERROR]}..."


@functools.lru_cache(maxsize=32)
def _compile(source: str) -> CompiledTemplate:
    from jinja2 import meta

    environment = _environment()
    environment.check_source(source)

    def compile_source() -> CompiledTemplate:
        tree = environment.parse(source)
        variables = frozenset(meta.find_undeclared_variables(tree))
        form, takes_text = _content_format(tree), _takes_text(tree)
        # Last, since it changes the tree.
        return CompiledTemplate(environment.from_string(tree), variables, form, takes_text)

    compiled: CompiledTemplate = environment.limited(source, compile_source)
    return compiled


def _content_format(tree: Any) -> str:
    from jinja2 import nodes

    aliases = set()
    for assign in tree.find_all(nodes.Assign):
        if isinstance(assign.target, nodes.Name) and _mentions_content(assign.node):
            aliases.add(assign.target.name)
    for loop in tree.find_all(nodes.For):
        over = loop.iter
        while isinstance(over, nodes.Filter) and over.node is not None:
            over = over.node
        if _is_content(over) or (isinstance(over, nodes.Name) and over.name in aliases):
            return "openai"
    return "string"


def _takes_text(tree: Any) -> bool:
    from jinja2 import nodes

    return any(test.name == "string" for test in tree.find_all(nodes.Test))


@functools.lru_cache(maxsize=1)
def _environment() -> LimitedEnvironment:
    """The environment of transformers: its options, extensions, filter and globals."""
    from jinja2 import ext

    from octavo.template_extensions import GenerationTag, TemplateDict, TemplateNamespace
    from octavo.template_sandbox import LimitedEnvironment

    environment = LimitedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, ext.loopcontrols]
    )
    environment.add_filter("tojson", _to_json)
    environment.globals.update(
        raise_exception=_raise_exception,
        strftime_now=_strftime_now,
        dict=TemplateDict(),
        namespace=TemplateNamespace,
    )
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the HTML escapes of jinja2's own filter."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    if len(format) > _MAX_TIME_FORMAT:
        raise ValueError(f"a time format of more than {_MAX_TIME_FORMAT} characters")
    return datetime.now().strftime(format)
