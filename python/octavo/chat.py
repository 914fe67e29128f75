"""Conversations to prompts: which template, which form of contents, and the ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from octavo.chat_template import (
    content_format,
    flatten_content,
    render_conversation,
    resolve_chat_template,
    template_variables,
)
from octavo.errors import validation_error
from octavo.inputs import TokensPrompt
from octavo.tokenizer import Tokenizer

_CONTENT_FORMATS = ("auto", "string", "openai")


@dataclass(frozen=True)
class ChatOptions:
    """How conversations are rendered; see ``LLM.chat``."""

    chat_template: str | None = None
    content_format: str = "auto"
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    tools: list[dict[str, Any]] | None = None
    template_kwargs: dict[str, Any] = field(default_factory=dict)


def render_chat(
    messages: Sequence[Any], tokenizer: Tokenizer, options: ChatOptions
) -> list[TokensPrompt]:
    """The prompts of one conversation or of several. Raises ValidationError."""
    if options.content_format not in _CONTENT_FORMATS:
        raise validation_error(
            f"chat_template_content_format must be one of {_CONTENT_FORMATS}, got "
            f"{options.content_format!r}",
            parameter="chat_template_content_format",
        )
    for name in ("chat_template", "tokenize"):
        if name in options.template_kwargs:
            raise validation_error(
                f"chat_template_kwargs must not hold {name!r}", parameter="chat_template_kwargs"
            )
    conversations = _conversations(messages)
    if not conversations:
        return []
    template = resolve_chat_template(tokenizer, options.chat_template, options.tools)
    return [_render(chat, template, tokenizer, options) for chat in conversations]


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


def _render(
    chat: Sequence[Any], template: str, tokenizer: Tokenizer, options: ChatOptions
) -> TokensPrompt:
    form = options.content_format
    if form == "auto":
        form = content_format(template)
    used = template_variables(template)
    extra = {k: v for k, v in options.template_kwargs.items() if k in used}
    text = render_conversation(
        flatten_content(chat) if form == "string" else chat,
        template,
        add_generation_prompt=options.add_generation_prompt,
        continue_final_message=options.continue_final_message,
        tools=options.tools,
        documents=options.template_kwargs.get("documents"),
        variables={**tokenizer.special_tokens_map, **extra},
    )
    # The template writes the special tokens itself: a second BOS would be one too many.
    ids = tokenizer.encode(text, add_special_tokens=False)
    return TokensPrompt(prompt=text, prompt_token_ids=ids)
