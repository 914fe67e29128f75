"""`octavo chat`: its commands, and the whole program in a pseudo-terminal with a real model."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_core
import fake_llm
import pytest
from fake_core import FakeModelInfo
from octavo import LLM, CompletionOutput, RequestOutput, SamplingParams
from octavo.chat import ChatOptions
from octavo.terminal_chat import HELP, TerminalChat
from octavo.terminal_input import message_reader

needs_engine = pytest.mark.skipif(fake_core.FAKED, reason="needs the compiled engine")


# What it does with each line.


@pytest.fixture
def talk(monkeypatch: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """talk(lines, **options) -> the chat after these lines. An exception among them is raised."""
    backend = fake_llm.small_backend()
    make = fake_llm.maker(monkeypatch, fake_llm.save_model(backend, tmp_path), backend)
    opened: list[LLM] = []

    def run(*lines: Any, max_tokens: int = 20, context: int = 1000, **options: Any) -> Any:
        engine = fake_llm.engine_saying(backend, "Hello", info=FakeModelInfo(max_model_len=context))
        llm = make(engine=engine)
        opened.append(llm)
        chat = TerminalChat(llm, SamplingParams(max_tokens=max_tokens), ChatOptions(), **options)
        given = iter(lines)

        def read() -> str:
            line = next(given, EOFError)
            if isinstance(line, str):
                return line
            raise line

        assert chat.run(read) == 0
        chat.left = list(given)  # type: ignore[attr-defined]
        chat.prompts = [backend.decode(s.prompt, skip_special_tokens=False)  # type: ignore[attr-defined]
                        for s in llm.fake.added]  # fmt: skip
        return chat

    yield run
    for llm in opened:
        llm.close()


def roles(chat: Any) -> str:
    return " ".join(message["role"] for message in chat.messages)


def test_questions_and_answers(talk: Any, capsys: Any) -> None:
    chat = talk("One?", "", "  ", "Two?\nlines", system="Be brief")
    assert capsys.readouterr().out == "Hello\nHello\n"
    assert roles(chat) == "system user assistant user assistant"
    assert chat.messages[3]["content"] == "Two?\nlines"
    assert chat.prompts[1] == (
        "<s>system: Be brief\n<s>user: One?\n<s>assistant: Hello\n<s>user: Two?\nlines\nAI:"
    )


def test_reset_forgets_but_for_the_system_message(talk: Any, capsys: Any) -> None:
    chat = talk("One?", "/reset", "Two?", system="Be brief")
    assert chat.prompts[1] == "<s>system: Be brief\n<s>user: Two?\nAI:"
    assert "forgotten" in capsys.readouterr().err


def test_system(talk: Any) -> None:
    chat = talk("/system Talk like a pirate", "One?", "/system", "Two?")
    assert chat.prompts[0].startswith("<s>system: Talk like a pirate\n<s>user: One?")
    assert chat.prompts[1].startswith("<s>user: One?")


def test_save_and_load(talk: Any, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "saved.json"
    chat = talk("Größe?", f"/save {path}", system="S")
    saved = json.loads(path.read_text())
    assert saved["messages"] == chat.messages
    assert saved["model"]
    loaded = talk(f"/load {path}", "And?")
    assert loaded.prompts[0].startswith("<s>system: S\n<s>user: Größe?\n<s>assistant: Hello\n")
    path.write_text(json.dumps([{"role": "user", "content": "listed"}]))
    assert talk(f"/load {path}").messages == [{"role": "user", "content": "listed"}]
    capsys.readouterr()
    for wrong in ("{", '{"messages": 3}', '[{"role": "user"}]', "[3]"):
        path.write_text(wrong)
        assert talk("Kept", f"/load {path}").messages[0]["content"] == "Kept"
    talk("/save", "/load", "/load /no/such/file", f"/save {tmp_path}/no/such/file")
    assert capsys.readouterr().err.count("error: ") == 8


def test_regenerate(talk: Any, capsys: Any) -> None:
    chat = talk("/regenerate", "One?", "/regenerate")
    assert "needs a message to answer" in capsys.readouterr().err
    assert chat.prompts == ["<s>user: One?\nAI:"] * 2
    assert roles(chat) == "user assistant"


def test_help_and_slashes(talk: Any, capsys: Any) -> None:
    chat = talk("/help", "/nonsense", "//usr/bin?", "/quit", "not read")
    shown = capsys.readouterr().err
    assert HELP in shown
    assert "unknown command /nonsense" in shown
    assert chat.prompts == ["<s>user: /usr/bin?\nAI:"]
    assert chat.left == ["not read"]


def test_interrupts_at_the_prompt(talk: Any, capsys: Any) -> None:
    """One is a warning, two in a row leave."""
    chat = talk(KeyboardInterrupt, "One?", KeyboardInterrupt, KeyboardInterrupt, "not read")
    assert chat.left == ["not read"]
    assert len(chat.prompts) == 1
    assert capsys.readouterr().err.count("Ctrl-C again or Ctrl-D leaves") == 2


def test_a_question_that_fails_is_not_kept(talk: Any, capsys: Any) -> None:
    chat = talk("x" * 500, "short", context=64)
    shown = capsys.readouterr()
    assert "maximum" in shown.err
    assert "Traceback" not in shown.err
    assert [m["content"] for m in chat.messages] == ["short", "Hello"]


def test_the_oldest_turns_make_room(talk: Any, capsys: Any) -> None:
    """64 tokens of context, of which a quarter is for the answer."""
    chat = talk(*[f"Question {i}?" for i in range(9)], system="S", context=64)
    assert "the context of 64 tokens is full" in capsys.readouterr().err
    assert roles(chat).startswith("system user assistant")
    assert chat.messages[1]["content"] != "Question 0?"
    assert chat.messages[-2]["content"] == "Question 8?"
    assert len(chat.prompts) == 9


def test_cut_answers_and_figures(talk: Any, capsys: Any) -> None:
    talk("One?", max_tokens=2, stats=True)
    shown = capsys.readouterr().err
    assert "the answer was cut" in shown
    assert re.search(r"\d+ prompt tokens \(\d+ cached\), 2 tokens in .* tokens/s", shown)
    assert re.search(r"time to first token \d+\.\d{3} s", shown)


def test_an_error_of_the_engine_is_shown(talk: Any, monkeypatch: Any, capsys: Any) -> None:
    def failing(self: LLM, *args: Any) -> Any:
        sample = CompletionOutput(0, "", [], finish_reason="error", error="NaN in the logits")
        yield RequestOutput("0", "", [1], None, [sample], True)

    monkeypatch.setattr(LLM, "stream", failing)
    chat = talk("One?")
    assert chat.messages == []
    assert "error: NaN in the logits" in capsys.readouterr().err


# Reading.


def test_lines_of_a_pipe(monkeypatch: Any) -> None:
    text = "one\ntwo \\\nlines\\\n\nlast \\\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    read = message_reader()
    assert [read(), read(), read()] == ["one", "two \nlines\n", "last "]
    with pytest.raises(EOFError):
        read()


def test_prompt_toolkit_edits_several_lines() -> None:
    pytest.importorskip("prompt_toolkit")
    from octavo.terminal_input import _toolkit_reader
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        read = _toolkit_reader()
        assert read is not None
        pipe.send_text("one\x1b\rtwo\\\rthree\r")
        assert read() == "one\ntwo\nthree"
        pipe.send_text("\x03")
        with pytest.raises(KeyboardInterrupt):
            read()
        pipe.send_text("\x04")
        with pytest.raises(EOFError):
            read()


# The program in a terminal.

QUIET = 120  # seconds without a byte: then something hangs


class Terminal:
    """A program in a pseudo-terminal."""

    def __init__(self, command: list[str]) -> None:
        self.main, side = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)}
        environment["PROMPT_TOOLKIT_NO_CPR"] = "1"  # nobody answers where the cursor is
        self.process = subprocess.Popen(
            command,
            stdin=side,
            stdout=side,
            stderr=side,
            env=environment,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(side)
        self.pieces: list[str] = []
        self._end = 0  # of what was looked at
        self._bytes = b""

    @property
    def text(self) -> str:
        return self._bytes.decode(errors="replace").replace("\r\n", "\n")

    def send(self, text: str) -> None:
        os.write(self.main, text.encode())

    def interrupt_prompt(self) -> None:
        """Ctrl-C at the prompt. readline shows it before it waits, and sees a signal that comes in
        between with the next key only: such a one is sent again."""
        self.send("\x03")
        if not select.select([self.main], [], [], 5)[0]:
            self.send("\x03")

    def wait_for(self, pattern: str) -> str:
        """What came since the last call, up to a match; each read is a piece."""
        while True:
            match = re.compile(pattern).search(self.text, self._end)
            if match:
                found = self.text[self._end : match.end()]
                self._end = match.end()
                return found
            if not self._read():
                raise AssertionError(f"no {pattern!r} in {self.text[self._end :]!r}")

    def wait_for_pieces(self, count: int) -> None:
        """Reads until output has come in so many pieces."""
        goal = len(self.pieces) + count
        while len(self.pieces) < goal:
            assert self._read(), self.text

    def finish(self) -> int:
        while self._read():
            pass
        return self.process.wait()

    def _read(self) -> bool:
        if not select.select([self.main], [], [], QUIET)[0]:
            return False
        try:
            data = os.read(self.main, 4096)
        except OSError:  # the program has ended
            return False
        self._bytes += data
        self.pieces.append(data.decode(errors="replace"))
        return bool(data)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self.main)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches the program


@pytest.fixture
def terminal(smollm2: Path) -> Iterator[Callable[..., Terminal]]:
    started: list[Terminal] = []

    def run(*arguments: str, toolkit: bool = False) -> Terminal:
        # The program that the console script runs; prompt_toolkit draws with escape sequences.
        without = "" if toolkit else "sys.modules['prompt_toolkit'] = None; "
        script = f"import sys; {without}from octavo.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", script, "chat", str(smollm2)]
        started.append(Terminal([*command, "--max-model-len", "1024", *arguments]))
        return started[-1]

    yield run
    for program in started:
        with contextlib.suppress(OSError):
            program.close()


@needs_engine
def test_a_conversation_in_a_terminal(terminal: Any, tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    program = terminal("--temperature", "0", "--max-tokens", "24", "--stats")
    program.wait_for(r"Type a message.*\n> ")
    pieces = len(program.pieces)
    program.send("Name three colors.\n")
    answer = program.wait_for(r"tokens/s.*\n> ")
    assert len(program.pieces) - pieces > 5  # it came in pieces
    assert "prompt tokens" in answer
    program.send("Which is the first?\n")
    program.wait_for(r"tokens/s.*\n> ")
    program.send(f"/save {saved}\n")
    program.wait_for(r"4 messages written to .*\n> ")
    program.send("/reset\n")
    program.wait_for(r"forgotten.*\n> ")
    program.send(f"A line that ends \\\nhere.\n/save {saved}.2\n")
    program.wait_for(r"2 messages written to .*\n> ")
    program.send("/quit\n")
    assert program.finish() == 0
    messages = json.loads(saved.read_text())["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"] * 2
    assert messages[1]["content"]
    assert messages[1]["content"] in answer
    after = json.loads(Path(f"{saved}.2").read_text())["messages"]
    assert after[0] == {"role": "user", "content": "A line that ends \nhere."}
    assert "Traceback" not in program.text


@needs_engine
def test_ctrl_c_stops_the_answer_and_not_the_program(terminal: Any, tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    program = terminal("--temperature", "0", "--ignore-eos")
    program.wait_for(r"Type a message.*\n> ")
    program.send("Count to one thousand.\n")
    program.wait_for("Count to one thousand.\n")
    program.wait_for_pieces(8)
    program.send("\x03")
    program.wait_for(r"\n> ")
    program.send(f"/save {saved}\n")
    program.wait_for(r"2 messages written to .*\n> ")
    messages = json.loads(saved.read_text())["messages"]
    assert messages[1]["content"]
    program.send("And?\n")  # the model is still there
    program.wait_for("And\\?\n")
    program.wait_for_pieces(3)
    program.send("\x03")
    program.wait_for(r"\n> ")
    program.interrupt_prompt()
    program.wait_for(r"Ctrl-C again or Ctrl-D leaves\)\n> ")
    program.interrupt_prompt()
    assert program.finish() == 0
    assert "Traceback" not in program.text


@needs_engine
def test_a_conversation_edited_with_prompt_toolkit(terminal: Any, tmp_path: Path) -> None:
    pytest.importorskip("prompt_toolkit")
    saved = tmp_path / "saved.json"
    prompt = r"(?s:.*?)\x1b\[\?25h"  # the cursor is shown
    program = terminal("--temperature", "0", "--max-tokens", "12", "--stats", toolkit=True)
    program.wait_for(rf"Type a message{prompt}")
    program.send("Name three\x1b\rcolors.\r")
    program.wait_for(rf"tokens/s{prompt}")
    program.send(f"/save {saved}\r")
    program.wait_for(rf"2 messages written to {prompt}")
    program.send("\x03")
    program.wait_for(rf"Ctrl-C again or Ctrl-D leaves{prompt}")
    program.send("/quit\r")
    assert program.finish() == 0
    messages = json.loads(saved.read_text())["messages"]
    assert messages[0]["content"] == "Name three\ncolors."
    assert messages[1]["content"]
    assert "Traceback" not in program.text


@needs_engine
def test_ctrl_d_leaves(terminal: Any) -> None:
    program = terminal()
    program.wait_for(r"Type a message.*\n> ")
    program.send("\x04")
    assert program.finish() == 0


@needs_engine
def test_a_pipe(smollm2: Path) -> None:
    command = [sys.executable, "-m", "octavo", "chat", str(smollm2), "--max-tokens", "4"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [*command, "--temperature", "0", "--max-model-len", "512"],
        input="Hi\nAnd?\n",
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 0
    assert result.stdout.count("\n") >= 2
    assert ">" not in result.stdout
    assert result.stderr.count("the answer was cut") == 2
