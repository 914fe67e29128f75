"""Where a terminal chat has its messages from: prompt_toolkit, ``input``, or lines of a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

# Gives one message. Raises EOFError at the end, and KeyboardInterrupt for Ctrl-C.
MessageReader = Callable[[], str]

_PROMPT, _CONTINUED = "> ", ". "


def message_reader() -> MessageReader:
    """The best reader for where the input comes from.

    With a terminal and prompt_toolkit a message is edited over several lines: Enter sends it,
    Alt-Enter begins a line. Elsewhere a line that ends in a backslash goes on with the next.
    """
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    return (_toolkit_reader() if terminal else None) or _line_reader(prompted=sys.stdin.isatty())


def _line_reader(*, prompted: bool) -> MessageReader:
    if prompted:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # gives `input` editing and a history

    def read() -> str:
        lines: list[str] = []
        while True:
            try:
                line = input((_CONTINUED if lines else _PROMPT) if prompted else "")
            except EOFError:
                if not lines:
                    raise
                return "\n".join(lines)
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    return read


def _toolkit_reader() -> MessageReader | None:
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.key_binding import KeyBindings
    except ImportError:
        return None
    bindings = KeyBindings()

    @bindings.add("enter")
    def _send(event: Any) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _begin_line(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    session: Any = PromptSession(
        multiline=True, key_bindings=bindings, prompt_continuation=lambda *_: _CONTINUED
    )

    def read() -> str:
        return str(session.prompt(_PROMPT))

    return read
