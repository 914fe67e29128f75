"""Messages in the forms that clients send, made the messages that chat templates know.

The rules are vLLM's. Whatever a message has besides is left as it is, for the template to see.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from octavo.chat_template import plain_data
from octavo.errors import validation_error

# The types of parts that are text, and where their text is.
_TEXT_PARTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
    "tool_reference": "name",
}
_MEDIA_PARTS = (
    "image",
    "image_url",
    "input_image",
    "image_pil",
    "image_embeds",
    "audio",
    "audio_url",
    "input_audio",
    "audio_embeds",
    "video",
    "video_url",
    "video_embeds",
    "prompt_embeds",
    "file",
)
_SKIPPED_WITHOUT_TEXT = ("text", "refusal")


def prepare_messages(messages: Sequence[Any], form: str, *, wrap: bool) -> list[dict[str, Any]]:
    """A conversation ready for its template.

    Args:
        messages: the conversation; it is not changed.
        form: "string" joins the parts of a content to one text, "openai" leaves a list of parts.
        wrap: with "openai", make a content that is text a list of one part.

    Raises ValidationError for a message or a part that is none, or that is not of text.
    """
    return [_prepare(message, form, wrap) for message in messages]


def without_developer(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages for a template that knows no developer: such a message is the system's, and all
    system messages are one, at the front."""
    if not any(message["role"] == "developer" for message in messages):
        return messages
    system = [m for m in messages if m["role"] in ("developer", "system")]
    others = [m for m in messages if m["role"] not in ("developer", "system")]
    first = {**system[0], "role": "system"}
    first.pop("tools", None)  # OpenAI's developer messages may hold them
    if len(system) > 1:
        text = "\n\n".join(filter(None, map(_text_of, system)))
        in_parts = any(isinstance(m.get("content"), list) for m in system)
        first["content"] = [{"type": "text", "text": text}] if in_parts else text
    return [first, *others]


def _prepare(message: Any, form: str, wrap: bool) -> dict[str, Any]:
    plain = plain_data(message)
    if not isinstance(plain, dict):
        raise TypeError(f"Chat messages should be dictionaries, got {type(message).__name__}")
    role = plain.get("role")
    if not isinstance(role, str):
        raise validation_error(
            f"a message needs a role, a string such as 'user', got {role!r}", parameter="messages"
        )
    content = plain.get("content")
    if content is not None:
        plain["content"] = _content(content, role, form, wrap)
    if role == "assistant":
        _prepare_tool_calls(plain)
        _name_reasoning(plain)
    return plain


def _content(content: Any, role: str, form: str, wrap: bool) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        if form == "openai" and wrap and role != "tool":
            return [{"type": "text", "text": content}]
        return content
    if not isinstance(content, (list, tuple)):
        raise validation_error(
            f"a message's content must be text or a list of parts, got {type(content).__name__}",
            parameter="messages",
        )
    parts = [part for part in map(_part, content) if part is not None]
    if form == "string" or (role == "tool" and all(p["type"] == "text" for p in parts)):
        return "\n".join(_part_text(part) for part in parts)
    return parts


def _part(part: Any) -> dict[str, Any] | None:
    """A part in the one form that templates know; None for one without text."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        raise validation_error(
            f"a part of a message's content must be text or a dictionary, got "
            f"{type(part).__name__}",
            parameter="messages",
        )
    kind = part.get("type")
    if kind is None:
        kind = next((name for name in (*_TEXT_PARTS, *_MEDIA_PARTS) if name in part), None)
        if kind is None:
            raise validation_error(
                "Missing 'type' field in a part of a message's content; expected text",
                parameter="messages",
            )
    _check_kind(kind)
    text = part.get(_TEXT_PARTS[kind])
    if text is None and kind in _SKIPPED_WITHOUT_TEXT:
        return None
    if not isinstance(text, str):
        raise validation_error(
            f"a chat content part of type {kind!r} needs a string {_TEXT_PARTS[kind]!r}, got "
            f"{type(text).__name__}",
            parameter="messages",
        )
    if kind == "tool_reference":
        return {"type": kind, "name": text}
    return {"type": "text", "text": text}


def _check_kind(kind: Any) -> None:
    if not isinstance(kind, str) or kind not in _TEXT_PARTS:
        reason = "this version of Octavo takes text only. " if kind in _MEDIA_PARTS else ""
        raise validation_error(
            f"Unsupported chat content part type: {kind!r}. {reason}Supported types: "
            f"{', '.join(sorted(_TEXT_PARTS))}.",
            parameter="type",
            value=kind,
        )


def _prepare_tool_calls(message: dict[str, Any]) -> None:
    """Templates want the arguments of calls as dictionaries; OpenAI's clients send JSON."""
    calls = message.get("tool_calls")
    if calls is None:
        return
    if not isinstance(calls, (list, tuple)) or not all(isinstance(call, dict) for call in calls):
        raise validation_error("tool_calls must be a list of dictionaries", parameter="messages")
    if not calls:
        del message["tool_calls"]
        return
    for call in calls:
        function = call.get("function")
        if isinstance(function, dict):
            function["arguments"] = _arguments(function.get("arguments"))


def _arguments(given: Any) -> Any:
    if isinstance(given, str):
        try:
            return json.loads(given)
        except (ValueError, RecursionError):
            return {}
    return given if isinstance(given, (dict, list)) else {}


def _name_reasoning(message: dict[str, Any]) -> None:
    """Some templates read ``reasoning``, others ``reasoning_content``."""
    for name, other in (("reasoning", "reasoning_content"), ("reasoning_content", "reasoning")):
        if message.get(name) is not None and message.get(other) is None:
            message[other] = message[name]


def _part_text(part: Mapping[str, Any]) -> str:
    text: str = part["name"] if part["type"] == "tool_reference" else part["text"]
    return text


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(map(_part_text, content))
