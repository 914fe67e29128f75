"""The chat utilities where programs written for older versions of vLLM look for them."""

from octavo.renderers.chat_utils import (
    ChatCompletionContentPartParam,
    ChatCompletionContentPartTextParam,
    ChatCompletionMessageParam,
    ChatTemplateContentFormat,
    ChatTemplateContentFormatOption,
    ChatTemplateResolutionError,
    ConversationMessage,
    CustomChatCompletionMessageParam,
    load_chat_template,
)
from octavo.renderers.hf import resolve_chat_template as resolve_hf_chat_template

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
    "resolve_hf_chat_template",
]
