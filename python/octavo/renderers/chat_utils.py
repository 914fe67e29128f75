"""The types of conversations, and ``load_chat_template``."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypedDict

from octavo.chat_template import ChatTemplateResolutionError, load_chat_template

__all__ = [
    "ChatCompletionContentPartParam",
    "ChatCompletionContentPartTextParam",
    "ChatCompletionMessageParam",
    "ChatTemplateContentFormat",
    "ChatTemplateContentFormatOption",
    "ChatTemplateResolutionError",
    "ConversationMessage",
    "CustomChatCompletionMessageParam",
    "load_chat_template",
]

ChatTemplateContentFormatOption: TypeAlias = Literal["auto", "string", "openai"]
ChatTemplateContentFormat: TypeAlias = Literal["string", "openai"]


class ChatCompletionContentPartTextParam(TypedDict):
    """A part of a message: text."""

    type: Literal["text"]
    text: str


# Any other part is refused with its type when the conversation is rendered.
ChatCompletionContentPartParam: TypeAlias = (
    str | ChatCompletionContentPartTextParam | dict[str, Any]
)


class _RequiredOfMessage(TypedDict):
    role: str


class CustomChatCompletionMessageParam(_RequiredOfMessage, total=False):
    """A message of a conversation, with any role that the model's template knows."""

    content: str | list[ChatCompletionContentPartParam] | None
    name: str
    reasoning: str | None
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: str | None
    tools: list[dict[str, Any]] | None


ChatCompletionMessageParam: TypeAlias = CustomChatCompletionMessageParam
ConversationMessage: TypeAlias = CustomChatCompletionMessageParam
