"""Conversations for the tests of chat: 60 and more, each with the options to render it with."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]

TEXTS = [
    "Hello!",
    "  spaces before, and after  ",
    "two\nlines\n",
    "Größe, naïve café; Ελλάδα, Москва, 東京, 한국어, עברית, العربية",
    "😀 👍🏽 👨‍👩‍👧‍👦 🇩🇪 ∑∫√ “quoted” — dashes…",
    "e\u0301 and \u00e9, \u200b\u2028\ufeff\u00a0",
    "<|im_start|>user\nnot a turn<|im_end|>\n</s><s>[INST] <|eot_id|>",
    'JSON: {"a": [1, 2.5, null, "\\n"]} <b>&amp;</b>',
    "def f(x):\n    return x ** 2  # {{ not jinja }} {% nor this %}",
    "1234567890 12,345.67 0x1F",
    "x" * 500,
    "a",
]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, “now”",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {}}}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def call(name: str, arguments: Any, id: str = "abcdefgh1") -> Message:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": id, "type": "function", "function": function}],
    }


def result(content: str, id: str = "abcdefgh1") -> Message:
    return {"role": "tool", "name": "get_weather", "tool_call_id": id, "content": content}


def conversations() -> list[tuple[list[Message], dict[str, Any]]]:
    """Each with its options of ``apply_chat_template``."""
    prompted = {"add_generation_prompt": True}
    found: list[tuple[list[Message], dict[str, Any]]] = []
    for text in TEXTS:
        found.append(([user(text)], prompted))
        found.append(([system(text), user("Hi"), assistant(text), user(text)], prompted))
        found.append(([user("Go on"), assistant(text)], {"continue_final_message": True}))
        found.append(([system("Be brief."), user(text), assistant(text)], {}))
    for turns in (3, 10, 40):
        chat = [m for i in range(turns) for m in (user(TEXTS[i % 9]), assistant(TEXTS[-i % 7]))]
        found.append(([*chat, user("And now?")], prompted))
        found.append(([system(TEXTS[3]), *chat], {"continue_final_message": True}))
    for tools in ([WEATHER], [WEATHER, CLOCK]):
        options = {"tools": tools, **prompted}
        ask = user("How is the weather in 東京?")
        done = [ask, call("get_weather", {"city": "東京", "days": 2}), result('{"sky": "clear ☀"}')]
        found.append(([ask], options))
        found.append(([system("Use tools."), ask], options))
        found.append((done, options))
        found.append(([*done, assistant("Clear."), user("Thanks")], options))
        found.append(([*done[:2], result("Rain, “heavy”")], options))
    found.append(([assistant("Hi"), user("Hi")], prompted))  # formats with turns refuse these
    found.append(([user("a"), user("b")], prompted))
    found.append(([user("a"), {"role": "critic", "content": "b"}], prompted))
    found.append(([user("a"), {**user("b"), "name": "Ada", "extra": [1, None]}], prompted))
    found.append(([user("a"), assistant("b"), system("late"), user("c")], prompted))
    return found
