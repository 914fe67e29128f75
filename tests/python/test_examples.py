"""The programs in examples/: those of vLLM's "Generative Models" page run with the import and the
model's name changed, and nothing else."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fake_core
import pytest
from octavo import LLM, SamplingParams
from octavo.entrypoints.chat_utils import load_chat_template
from octavo.sampling_params import BeamSearchParams

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
needs_engine = pytest.mark.skipif(fake_core.FAKED, reason="needs the compiled engine")

# The page's statements, without their models.
PRINT = """
for output in outputs:
    prompt = output.prompt
    generated_text = output.outputs[0].text
    print(f"Prompt: {prompt!r}, Generated text: {generated_text!r}")
"""
PAGE = {
    "generate": f"""
from vllm import LLM, SamplingParams
outputs = llm.generate("Hello, my name is")
{PRINT}
params = SamplingParams(temperature=0)
outputs = llm.generate("Hello, my name is", params)
{PRINT}
""",
    "beam_search": f"""
from vllm import LLM
from vllm.sampling_params import BeamSearchParams
params = BeamSearchParams(beam_width=5, max_tokens=50)
outputs = llm.generate("Hello, my name is", params)
{PRINT}
outputs = llm.beam_search([{{"prompt": "Hello, my name is "}}], params)
for output in outputs:
    generated_text = output.sequences[0].text
    print(f"Generated text: {{generated_text!r}}")
""",
    "chat": f"""
from vllm import LLM
from vllm.entrypoints.chat_utils import load_chat_template
conversation = [
    {{"role": "system", "content": "You are a helpful assistant"}},
    {{"role": "user", "content": "Hello"}},
    {{"role": "assistant", "content": "Hello! How can I assist you today?"}},
    {{
        "role": "user",
        "content": "Write an essay about the importance of higher education.",
    }},
]
outputs = llm.chat(conversation)
{PRINT}
custom_template = load_chat_template(chat_template=path_to_template)
print("Loaded chat template:", custom_template)
outputs = llm.chat(conversation, chat_template=custom_template)
{PRINT}
""",
}
CONVERSATION = [
    {"role": "system", "content": "You are a helpful assistant"},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello! How can I assist you today?"},
    {"role": "user", "content": "Write an essay about the importance of higher education."},
]


def statements(source: str) -> list[str]:
    """Each statement on a line of its own, in one spelling."""
    return [ast.unparse(statement) for statement in ast.parse(source).body]


@pytest.mark.parametrize("name", PAGE)
def test_only_the_import_and_the_model_differ_from_the_page(name: str) -> None:
    page = statements(PAGE[name].replace("vllm", "octavo"))
    ours = statements((EXAMPLES / f"{name}.py").read_text())
    assert [line for line in ours if line in page] == page
    others = [line for line in ours if line not in page]
    assert sum(line.startswith("llm = LLM(model=") for line in others) == 1
    # What else there is says where the model and the template are.
    known = r"'\\n|\"|'|import sys|from pathlib|llm = |path_to_template = |if len\(sys.argv\)"
    assert all(re.match(known, line) for line in others), others


@pytest.fixture(scope="module")
def llm(smollm2: Path) -> Iterator[LLM]:
    with LLM(str(smollm2)) as llm:
        yield llm


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@needs_engine
def test_generate(smollm2: Path, llm: LLM) -> None:
    sampled, greedy = run("generate", str(smollm2)).splitlines()
    assert re.fullmatch(r"Prompt: 'Hello, my name is', Generated text: .+", sampled)
    (output,) = llm.generate("Hello, my name is", SamplingParams(temperature=0), use_tqdm=False)
    text = output.outputs[0].text
    assert greedy == f"Prompt: 'Hello, my name is', Generated text: {text!r}"


@needs_engine
def test_beam_search(smollm2: Path, llm: LLM) -> None:
    first, second = run("beam_search", str(smollm2)).splitlines()
    params = BeamSearchParams(beam_width=5, max_tokens=50)
    (output,) = llm.generate("Hello, my name is", params, use_tqdm=False)
    assert len(output.outputs) == 5
    text = output.outputs[0].text
    assert first == f"Prompt: 'Hello, my name is', Generated text: {text!r}"
    (found,) = llm.beam_search([{"prompt": "Hello, my name is "}], params)
    assert second == f"Generated text: {found.sequences[0].text!r}"
    assert found.sequences[0].text.startswith("Hello, my name is ")


@needs_engine
@pytest.mark.parametrize("template", ["", "alpaca"])
def test_chat(smollm2: Path, llm: LLM, template: str) -> None:
    path = EXAMPLES / "templates" / f"{template or 'chatml'}.jinja"
    custom = load_chat_template(path)
    shown = run("chat", str(smollm2), *([str(path)] if template else []))
    before, loaded, after = shown.partition(f"Loaded chat template: {custom}\n")
    assert loaded
    for lines, options in ((before, {}), (after, {"chat_template": custom})):
        (output,) = llm.chat(CONVERSATION, SamplingParams(max_tokens=1), use_tqdm=False, **options)
        (line,) = lines.splitlines()
        assert line.startswith(f"Prompt: {output.prompt!r}, Generated text: ")
        assert not line.endswith("Generated text: ''")


@needs_engine
def test_demo(smollm2: Path) -> None:
    shown = run("demo", str(smollm2), "--max-tokens", "4")
    assert "The capital of France is" in shown
    assert "tokens/s" in shown
