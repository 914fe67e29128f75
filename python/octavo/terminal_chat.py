"""TerminalChat: a conversation with a model, typed and shown in a terminal. Used by one thread."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.chat import ChatOptions, render_chat
from octavo.errors import OctavoError, validation_error
from octavo.terminal_input import MessageReader, message_reader

if TYPE_CHECKING:
    from octavo.inputs import TokensPrompt
    from octavo.llm import LLM
    from octavo.sampling_params import SamplingParams

HELP = """\
/system TEXT    set the system message; without a text, remove it
/reset          forget the conversation, but not the system message
/regenerate     answer the last message again
/save FILE      write the conversation to a file, as JSON
/load FILE      go on with a conversation that was saved
/help           show this
/exit           leave; so do /quit, Ctrl-D, and Ctrl-C twice

A line that ends in \\ goes on with the next one. // begins a message with a slash. Ctrl-C stops an
answer; what there is of it stays in the conversation."""
_WELCOME = "Type a message, or /help. Ctrl-C stops an answer, Ctrl-D leaves."
_LEAVING = "(Ctrl-C again or Ctrl-D leaves)"
_LEAST_ANSWER = 256  # tokens that are kept free for an answer, where the context is long
# Control characters that a model has no business to send to a terminal.
_CONTROLS = {c: None for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"}

Message = dict[str, Any]


@dataclasses.dataclass
class Answer:
    """The model's message as far as it has come, and what it took."""

    text: str = ""
    num_tokens: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    first_seconds: float = 0.0
    seconds: float = 0.0
    finish_reason: str | None = None
    error: str | None = None
    interrupted: bool = False

    def stats(self) -> str:
        """One line of figures."""
        speed = self.num_tokens / max(self.seconds, 1e-9)
        return (
            f"{self.num_prompt_tokens} prompt tokens ({self.num_cached_tokens} cached), "
            f"{self.num_tokens} tokens in {self.seconds:.2f} s: {speed:.1f} tokens/s; "
            f"time to first token {self.first_seconds:.3f} s"
        )


class TerminalChat:
    """A conversation.

    Args:
        llm: the model.
        params: how it answers.
        options: how the conversation is rendered.
        stats: whether to print figures after each answer.
        system: the system message.
    """

    def __init__(
        self,
        llm: LLM,
        params: SamplingParams,
        options: ChatOptions,
        *,
        stats: bool = False,
        system: str | None = None,
    ) -> None:
        self._llm = llm
        self._params = params
        self._options = options
        self._stats = stats
        self._system = system
        self._turns: list[Message] = []
        self._commands: dict[str, Callable[[str], None]] = {
            "system": self._set_system,
            "reset": self._reset,
            "regenerate": self._regenerate,
            "save": self._save,
            "load": self._load,
            "help": lambda _: _note(HELP),
        }

    @property
    def messages(self) -> list[Message]:
        """The conversation with its system message."""
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        return [*system, *self._turns]

    def run(self, read: MessageReader | None = None) -> int:
        """Reads and answers until the input ends; returns the exit status."""
        read = read or message_reader()
        if sys.stdin.isatty():
            _note(_WELCOME)
        interrupted = False
        while True:
            try:
                line = read()
                interrupted = False
                if line.strip() in ("/exit", "/quit"):
                    return 0
                self._handle(line)
            except EOFError:
                return 0
            except KeyboardInterrupt:
                if interrupted:
                    return 0
                interrupted = True
                _note(f"\n{_LEAVING}")
            except (OctavoError, OSError, ValueError, TypeError) as error:
                _note(f"error: {' '.join(str(error).split())}")

    def ask(self, text: str) -> Answer:
        """Adds a message and shows the answer as it comes. Raises ValidationError where the message
        cannot be answered; then it is not part of the conversation."""
        self._turns.append({"role": "user", "content": text})
        try:
            answer = self._answer()
        except BaseException:
            self._turns.pop()
            raise
        self._turns.append({"role": "assistant", "content": answer.text})
        return answer

    def _handle(self, line: str) -> None:
        text = line.strip()
        if text.startswith("/") and not text.startswith("//"):
            name, _, rest = text[1:].partition(" ")
            command = self._commands.get(name)
            if command is None:
                _note(f"unknown command /{name}; /help lists them")
            else:
                command(rest.strip())
        elif text:
            self.ask(line[1:] if text.startswith("//") else line)

    # Answers.

    def _answer(self) -> Answer:
        prompt = self._prompt()
        answer = Answer(num_prompt_tokens=len(prompt["prompt_token_ids"]))
        self._stream(prompt, answer)
        print(flush=True)
        if answer.error is not None:
            raise OctavoError(answer.error)
        if answer.finish_reason == "length":
            _note("(the answer was cut: it reached the greatest length)")
        if self._stats:
            _note(answer.stats())
        return answer

    def _stream(self, prompt: TokensPrompt, answer: Answer) -> None:
        clean = sys.stdout.isatty()
        start = time.monotonic()
        outputs = self._llm.stream(prompt, self._params)
        try:
            for output in outputs:
                delta = output.outputs[0]
                if not answer.num_tokens:
                    answer.first_seconds = time.monotonic() - start
                answer.num_cached_tokens = output.num_cached_tokens or 0
                answer.num_tokens += len(delta.token_ids)
                answer.text += delta.text
                answer.finish_reason, answer.error = delta.finish_reason, delta.error
                print(delta.text.translate(_CONTROLS) if clean else delta.text, end="", flush=True)
        except KeyboardInterrupt:
            answer.interrupted = True
        finally:
            outputs.close()
            answer.seconds = time.monotonic() - start

    def _prompt(self) -> TokensPrompt:
        """The conversation as a prompt that leaves room for an answer: the oldest turns are dropped
        until there is."""
        limit = self._llm.max_model_len
        room = min(self._params.max_tokens or _LEAST_ANSWER, _LEAST_ANSWER, max(limit // 4, 1))
        num_dropped = 0
        while True:
            (prompt,) = render_chat(self.messages, self._llm.get_tokenizer(), self._options)
            fits = len(prompt["prompt_token_ids"]) + room <= limit
            oldest = next((i for i, m in enumerate(self._turns) if i and m["role"] == "user"), None)
            if fits or oldest is None:  # the last message alone may be too long: the engine says so
                break
            num_dropped += oldest
            del self._turns[:oldest]
        if num_dropped:
            _note(f"(the context of {limit} tokens is full: {num_dropped} old messages dropped)")
        return prompt

    # Commands.

    def _set_system(self, text: str) -> None:
        self._system = text or None
        _note("(the system message is set)" if text else "(there is no system message)")

    def _reset(self, _: str) -> None:
        self._turns.clear()
        _note("(the conversation is forgotten)")

    def _regenerate(self, _: str) -> None:
        last = max((i for i, m in enumerate(self._turns) if m["role"] == "user"), default=None)
        if last is None:
            raise validation_error("/regenerate needs a message to answer")
        before = list(self._turns)
        text = self._turns[last]["content"]
        del self._turns[last:]
        try:
            self.ask(text)
        except BaseException:
            self._turns = before
            raise

    def _save(self, name: str) -> None:
        if not name:
            raise validation_error("/save needs the name of a file")
        saved = {"model": self._llm.model, "messages": self.messages}
        Path(name).expanduser().write_text(
            json.dumps(saved, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )
        _note(f"({len(self.messages)} messages written to {name})")

    def _load(self, name: str) -> None:
        if not name:
            raise validation_error("/load needs the name of a file")
        loaded = json.loads(Path(name).expanduser().read_text(encoding="utf-8"))
        messages = loaded.get("messages") if isinstance(loaded, dict) else loaded
        if not isinstance(messages, list) or not all(map(_is_message, messages)):
            raise validation_error(f"{name}: expected a list of messages with role and content")
        system = messages[:1] if messages and messages[0]["role"] == "system" else []
        self._system = system[0]["content"] if system else None
        self._turns = [dict(message) for message in messages[len(system) :]]
        _note(f"({len(messages)} messages read from {name})")


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), str)
    )


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
