"""The command: what it prints, its exit status, and one-line errors."""

import json
import subprocess
import sys

import fake_core
import octavo
import pytest
import text_models
from fake_core import FakeEngine
from octavo import _core
from octavo.cli import main

TEMPLATE = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"


@pytest.fixture(scope="module")
def backend():
    return text_models.byte_level(specials=("<unk>", "<s>", "</s>"))


@pytest.fixture
def model(tmp_path, backend):
    config = {"eos_token": "</s>", "chat_template": TEMPLATE}
    return str(text_models.save(backend, tmp_path, config))


@pytest.fixture
def engine(monkeypatch, backend):
    ids = [*backend.encode("Hello 😀!").ids, 2]
    fake = FakeEngine(reply=lambda prompt, sample, position: ids[position])
    return fake_core.use(monkeypatch, fake)


def test_generate(model, engine, capsys):
    assert main(["generate", model, "--prompt", "The fox:", "--max-tokens", "30"]) == 0
    assert capsys.readouterr().out == "The fox:Hello 😀!\n"
    assert engine.added[0].params.max_tokens == 30


def test_generate_options(model, engine, capsys):
    arguments = ["--prompt", "a", "--prompt", "b", "--temperature", "0.5", "--top-p", "0.9",
                 "--top-k", "7", "--min-p", "0.1", "--seed", "3", "--n", "2", "--stop", "😀",
                 "--ignore-eos", "--stats"]  # fmt: skip
    assert main(["generate", model, *arguments]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("Hello \n") == 4
    assert "!" not in shown.out
    params = engine.added[0].params
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == pytest.approx(
        (0.5, 0.9, 7, 0.1)
    )
    assert (params.seed, params.n, params.ignore_eos, params.max_tokens) == (3, 2, True, 64)
    assert "2 prompt tokens, " in shown.err
    assert "time to first token" in shown.err


def test_defaults_of_the_model_count(model, engine, tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps({"temperature": 0.3, "top_k": 5}))
    assert main(["generate", model, "--prompt", "a", "--top-k", "9"]) == 0
    params = engine.added[0].params
    assert (params.temperature, params.top_k) == (pytest.approx(0.3), 9)


def test_chat_quick(model, engine, capsys, backend):
    assert main(["chat", model, "-q", "Hi", "--system-prompt", "Be brief", "--stats"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "Hello 😀!\n"
    assert "tokens/s" in shown.err
    assert backend.decode(engine.added[0].prompt) == "system=Be brief;user=Hi;"
    assert engine.added[0].params.max_tokens is None


def test_chat_options_of_the_template(model, engine, backend):
    template = "{{ style }}:{{ messages | map(attribute='content') | join(',') }}"
    arguments = ["--chat-template", template, "--chat-template-kwargs", '{"style": "fancy"}']
    assert main(["chat", model, "-q", "Hi", "--system", "S", "--max-tokens", "9", *arguments]) == 0
    assert backend.decode(engine.added[0].prompt) == "fancy:S,Hi"
    assert engine.added[0].params.max_tokens == 9
    for wrong in ("[1]", "{"):
        with pytest.raises(SystemExit):
            main(["chat", model, "--chat-template-kwargs", wrong])


def test_chat_keeps_its_history(model, engine, capsys, monkeypatch, backend):
    lines = iter(["Hi", "", "And?", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))
    assert main(["chat", model]) == 0
    assert capsys.readouterr().out == "Hello 😀!\nHello 😀!\n"
    assert backend.decode(engine.added[1].prompt) == "user=Hi;assistant=Hello 😀!;user=And?;"


def test_chat_ends_with_its_input(model, engine, monkeypatch):
    def end(prompt=""):
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    assert main(["chat", model]) == 0


def test_interrupting_an_answer_keeps_what_there_is(model, engine, capsys, monkeypatch, backend):
    lines = iter(["Hi", "Go on", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))

    def interrupt(fake):
        if fake.num_steps == 2:
            fake.num_steps += 1
            raise KeyboardInterrupt

    engine.before_step = interrupt
    assert main(["chat", model]) == 0
    first, second = engine.added
    assert engine.aborted == [100]
    assert not engine.live
    said = backend.decode(first.tokens[0])
    assert backend.decode(second.prompt) == f"user=Hi;assistant={said};user=Go on;"


def test_info(capsys):
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert octavo.__version__ in shown
    assert _core.cpu_isas()[0] in shown
    assert f"threads        {_core.default_num_threads()}" in shown


def test_info_of_a_model(model, engine, capsys):
    assert main(["info", model, "--dtype", "bfloat16"]) == 0
    shown = capsys.readouterr().out
    for text in ("FakeForCausalLM", "float32", "12,345", "64 tokens", "16 blocks of 16 tokens"):
        assert text in shown
    assert engine.options["dtype"] == "bfloat16"


def test_info_cmake_dir(capsys):
    assert main(["info", "--cmake-dir"]) == 0
    shown = capsys.readouterr().out.strip()
    assert shown == octavo.get_cmake_dir()
    assert shown.endswith("octavo/lib/cmake/octavo")
    assert octavo.get_include().endswith("octavo/include")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["generate", "/no/such/model", "--prompt", "x"], "/no/such/model"),
        (["generate", "MODEL", "--prompt", ""], "prompt cannot be empty"),
        (["generate", "MODEL", "--prompt", "x", "--temperature", "9"], "temperature must be"),
        (["generate", "MODEL", "--prompt", "x", "--max-tokens", "-1"], "max_tokens must be"),
        (["generate", "MODEL", "--prompt", "x", "--max-model-len", "x"], "max_model_len must be"),
        (["chat", "MODEL", "-q", "x", "--chat-template", "{% x %}"], "chat template"),
        (["info", "/no/such/model"], "/no/such/model"),
    ],
)
def test_errors_are_one_line(model, engine, capsys, arguments, text):
    assert main([model if argument == "MODEL" else argument for argument in arguments]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("octavo: error: ")
    assert text in shown.err
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.err


def test_failed_request(model, engine, capsys):
    engine.failing, engine.reply = "NaN in the logits", None
    prompt = {"prompt_token_ids": [666]}
    llm = octavo.LLM(model)
    with pytest.warns(UserWarning, match="NaN"):
        (output,) = llm.generate(prompt, use_tqdm=False)
    assert output.outputs[0].finish_reason == "error"


def test_wrong_usage_is_argparses(capsys):
    for arguments in ([], ["generate"], ["nonsense"], ["generate", "m"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert octavo.__version__ in capsys.readouterr().out


@pytest.mark.skipif(fake_core.FAKED, reason="needs the compiled engine")
def test_python_dash_m():
    command = [sys.executable, "-m", "octavo"]
    result = subprocess.run([*command, "info"], capture_output=True, text=True, check=True)
    assert "instructions" in result.stdout
    result = subprocess.run([*command, "info", "/no/such"], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
