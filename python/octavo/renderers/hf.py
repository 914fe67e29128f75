"""``resolve_chat_template`` where programs written for vLLM look for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octavo import chat_template as _templates


def resolve_chat_template(
    tokenizer: Any,
    chat_template: str | None = None,
    tools: Sequence[Any] | None = None,
    *,
    model_config: Any = None,
    trust_remote_code: bool | None = None,
) -> str | None:
    """The template that ``LLM.chat`` would use with this tokenizer, None where there is none.

    ``model_config`` and ``trust_remote_code`` are taken for compatibility: no template depends on
    them.
    """
    try:
        return _templates.resolve_chat_template(tokenizer, chat_template, tools)
    except _templates.ChatTemplateResolutionError:
        return None
