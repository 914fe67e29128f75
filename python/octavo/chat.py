"""Conversations to prompts: which template, which form of contents, and the ids."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octavo.chat_messages import prepare_messages, without_developer
from octavo.chat_template import (
    CompiledTemplate,
    compile_template,
    render_conversation,
    resolve_chat_template,
)
from octavo.errors import ValidationError, validation_error
from octavo.inputs import FailedPrompt, TokensPrompt
from octavo.tokenizer import Tokenizer

_CONTENT_FORMATS = ("auto", "string", "openai")


@dataclass(frozen=True)
class ChatOptions:
    """How conversations are rendered; see ``LLM.chat``."""

    chat_template: str | None = None
    chat_template_content_format: str = "auto"
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None

    @property
    def template_kwargs(self) -> Mapping[str, Any]:
        """Variables for the template."""
        return self.chat_template_kwargs or {}


def render_chat(
    messages: Sequence[Any], tokenizer: Tokenizer, options: ChatOptions
) -> list[TokensPrompt]:
    """The prompts of one conversation or of several.

    Raises ValidationError, and TypeError for what is no conversation.
    """
    return [render() for render in _renderings(messages, tokenizer, options)]


def try_render_chat(
    messages: Sequence[Any], tokenizer: Tokenizer, options: ChatOptions
) -> list[TokensPrompt | FailedPrompt]:
    """As ``render_chat``, with a FailedPrompt for each conversation that is refused. Raises what is
    wrong with all of them."""

    def prompt(render: Callable[[], TokensPrompt]) -> TokensPrompt | FailedPrompt:
        try:
            return render()
        except (ValidationError, TypeError) as error:
            return FailedPrompt(error)

    return [prompt(render) for render in _renderings(messages, tokenizer, options)]


def _renderings(
    messages: Sequence[Any], tokenizer: Tokenizer, options: ChatOptions
) -> list[Callable[[], TokensPrompt]]:
    """For each conversation what makes its prompt."""
    _check_options(options)
    conversations = _conversations(messages)
    if not conversations:
        return []
    template = resolve_chat_template(tokenizer, options.chat_template, options.tools)
    if template == options.chat_template and not any(mark in template for mark in "{}\n"):
        warnings.warn(
            f"chat_template={template!r} is text without any Jinja, so every prompt is that text; "
            "for the template in a file pass load_chat_template(path)",
            stacklevel=5,
        )
    compiled = compile_template(template)
    if _tools(options) and "tools" not in template:
        warnings.warn(
            "the chat template does not use tools: the model will not see them", stacklevel=5
        )
    return [
        functools.partial(_prompt, chat, template, compiled, tokenizer, options)
        for chat in conversations
    ]


def _check_options(options: ChatOptions) -> None:
    if options.chat_template_content_format not in _CONTENT_FORMATS:
        raise validation_error(
            f"chat_template_content_format must be one of {_CONTENT_FORMATS}, got "
            f"{options.chat_template_content_format!r}",
            parameter="chat_template_content_format",
        )
    for name in ("chat_template", "tokenize"):
        if name in options.template_kwargs:
            raise validation_error(
                f"chat_template_kwargs must not hold {name!r}", parameter="chat_template_kwargs"
            )
    for name, values in (("tools", _tools(options)), ("documents", _documents(options))):
        if values is not None and not _is_list_of_mappings(values):
            raise validation_error(
                f"{name} must be a list of dictionaries, got {values!r:.100}", parameter=name
            )


def _tools(options: ChatOptions) -> Any:
    return options.template_kwargs.get("tools") if options.tools is None else options.tools


def _documents(options: ChatOptions) -> Any:
    return options.template_kwargs.get("documents")


def _is_list_of_mappings(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(
        isinstance(value, Mapping) or hasattr(value, "model_dump") for value in values
    )


def _conversations(messages: Sequence[Any]) -> list[Sequence[Any]]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise TypeError(
            "messages should be a list of messages or a list of such lists, "
            f"got {type(messages).__name__}"
        )
    if not messages:
        return []
    nested = [isinstance(item, (list, tuple)) for item in messages]
    if all(nested):
        return list(messages)
    if any(nested):
        raise TypeError("messages should not mix messages and lists of messages")
    return [messages]


def _prompt(
    messages: Sequence[Any],
    template: str,
    compiled: CompiledTemplate,
    tokenizer: Tokenizer,
    options: ChatOptions,
) -> TokensPrompt:
    form, wrap = options.chat_template_content_format, True
    if form == "auto":
        # A template that tells text from parts gets text where the caller has text, as in
        # transformers; another one would take the text apart into characters.
        form, wrap = compiled.content_format, not compiled.takes_text
    try:
        chat = prepare_messages(messages, form, wrap=wrap)
    except RecursionError:
        raise validation_error("the conversation is nested too deeply") from None
    if "developer" not in template:
        chat = without_developer(chat)
    kwargs = options.template_kwargs
    variables = {k: v for k, v in kwargs.items() if k in compiled.variables}

    def render(chat: Sequence[Any]) -> str:
        return render_conversation(
            chat,
            template,
            add_generation_prompt=options.add_generation_prompt,
            continue_final_message=options.continue_final_message,
            tools=_tools(options),
            documents=_documents(options),
            variables={**tokenizer.special_tokens_map, **variables},
        )

    text = _rendered(chat, render)
    # The template writes the special tokens itself: a second BOS would be one too many.
    ids = tokenizer.encode(text, add_special_tokens=False)
    return TokensPrompt(prompt=text, prompt_token_ids=ids)


def _rendered(chat: list[dict[str, Any]], render: Any) -> str:
    """A message without content has none for the template either, as in transformers. Where the
    template fails at that, its content is empty, as in vLLM."""
    try:
        return str(render(chat))
    except ValidationError:
        if all(message.get("content") is not None for message in chat):
            raise
        return str(render([{**m, "content": m.get("content") or ""} for m in chat]))
