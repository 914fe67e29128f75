"""bench/compare.py: its workloads, its judgement, and a whole run with an engine beside Octavo."""

import json
import random
import subprocess
import sys
from pathlib import Path

import fake_core
import pytest
from harness import engines
from harness.process import EngineError, EngineProcess
from harness.targets import TARGETS, judge
from harness.workloads import METRICS, WORKLOADS, Corpus, metrics_of

ROOT = Path(__file__).resolve().parent.parent.parent
SETUP = engines.Setup(Path("nowhere"), "smollm2", sys.executable, None, {})


def test_workloads():
    requests = {name: make(Corpus(range(50_000))) for name, make in WORKLOADS.items()}
    draw = random.Random(7)
    w2 = [(draw.randint(32, 512), draw.randint(16, 256)) for _ in range(64)]
    shapes = {
        "W1": [(128, 128)],
        "W2": w2,
        "W2S": w2[:16],
        "W3": [(1024, 1)],
        "W4": [(544, 32)] * 32,
        "W5": [(64, 50)],
    }
    assert set(requests) == set(shapes)
    for name, shape in shapes.items():
        lengths = list(map(len, requests[name].prompts))
        assert list(zip(lengths, requests[name].output_lens, strict=True)) == shape
    assert [name for name in requests if requests[name].beams] == ["W5"]
    assert requests["W5"].beams == 5
    assert len({tuple(prompt[:512]) for prompt in requests["W4"].prompts}) == 1
    assert len({tuple(prompt[512:]) for prompt in requests["W4"].prompts}) == 32


def test_prompts_are_new_until_the_text_ends():
    corpus = Corpus(range(10))
    assert corpus.take(4) == [0, 1, 2, 3]
    assert corpus.take(4) == [4, 5, 6, 7]
    assert corpus.take(4) == [8, 9, 0, 1]
    assert len(corpus.take(25)) == 25


def test_figures():
    answer = {
        "seconds": 2.0,
        "first_token": 0.5,
        "last_token": 1.5,
        "num_first": 1,
        "num_tokens": 128,
    }
    requests = {name: make(Corpus(range(50_000))) for name, make in WORKLOADS.items()}
    assert metrics_of("W1", requests["W1"], answer) == {"W1 ttft": 500.0, "W1 decode": 127.0}
    merged = {**answer, "num_first": 8}
    assert metrics_of("W1", requests["W1"], merged)["W1 decode"] == 120.0
    at_once = {**answer, "num_first": 128, "last_token": 0.5}
    assert metrics_of("W1", requests["W1"], at_once)["W1 decode"] == 256.0
    faster = {**answer, "bench_tokens_per_second": 150.0}
    assert metrics_of("W1", requests["W1"], faster)["W1 decode"] == 150.0
    assert metrics_of("W2", requests["W2"], answer) == {"W2": 64.0}
    assert metrics_of("W3", requests["W3"], answer) == {"W3": 512.0}
    assert metrics_of("W4", requests["W4"], answer) == {"W4": 2.0}


def test_judgement():
    medians = {
        "W1 decode": {"octavo:bf16": 90.0, "openvino:bf16": 60.0, "llama_cpp:bf16": 70.0},
        "W4": {"octavo:bf16": 1.0, "vllm:bf16": 1.6, "openvino:bf16": 6.0},
        "memory over": {"octavo:bf16": 61.0},
    }
    outcomes = {(o.target.metric, o.target.octavo): o for o in judge("smollm2", medians)}
    assert len(outcomes) == len(TARGETS["smollm2"])
    decode = outcomes["W1 decode", "octavo:bf16"]
    assert (decode.peer, decode.ratio, decode.met) == ("openvino:bf16", 1.5, True)
    assert (decode.best, decode.best_value) == ("llama_cpp:bf16", 70.0)
    prefix = outcomes["W4", "octavo:bf16"]
    assert (prefix.peer, prefix.ratio, prefix.met) == ("vllm:bf16", 0.625, False)
    assert outcomes["memory over", "octavo:bf16"].met is False
    assert outcomes["W2", "octavo:bf16"].met is None
    assert all(target.metric in METRICS for group in TARGETS.values() for target in group)


def test_choice_of_engines():
    names = [variant.name for variant in engines.choose(engines.PEERS, None)]
    assert "llama_cpp:q8_0" in names
    assert "vllm:eager" not in names
    chosen = engines.choose(engines.PEERS, ["vllm:eager", "openvino", "llama_cpp"])
    assert [v.name for v in chosen] == ["vllm:eager", "openvino:bf16", "llama_cpp:bf16",
                                        "llama_cpp:q8_0", "llama_cpp:q4_1"]  # fmt: skip
    assert [v.name for v in engines.choose(engines.OCTAVO, ["int8"])] == ["octavo:int8"]
    with pytest.raises(ValueError, match="tgi is unknown"):
        engines.choose(engines.PEERS, ["tgi"])


def test_every_peer_has_an_adapter_and_a_recipe():
    recipes = (engines.PEERS_FOLDER / "setup.py").read_text()
    for variant in [*engines.OCTAVO, *engines.PEERS]:
        assert Path(SETUP.command(variant)[1]).is_file()
        assert variant.engine == "octavo" or f'"{variant.engine}": (' in recipes
    assert SETUP.missing(engines.PEERS[0]) == "nowhere/models/smollm2/openvino"


def test_an_engine_that_fails():
    """Its errors are answers; the process goes on until it is closed."""
    with EngineProcess(SETUP, engines.OCTAVO[0]) as process:
        task = {
            "model": "/no/such/model",
            "threads": 1,
            "max_tokens": 64,
            "max_sequences": 1,
            "options": {},
        }
        if fake_core.FAKED:
            task["options"] = {"nonsense": 1}
        for _ in range(2):
            with pytest.raises(EngineError, match="Error: "):
                process.ask("load", 60, **task)
        process.pause()
        with pytest.raises(EngineError, match="no answer within"):
            process.ask("load", 0.2, **task)


@pytest.fixture
def installed(tmp_path, tiny_model):
    """A folder as peers/setup.py leaves it, with a tiny model, and transformers as the one peer."""
    overrides = {"max_position_embeddings": 2048}
    model = tiny_model("llama", tokenizer=True, dtype="bfloat16", overrides=overrides)
    folder = tmp_path / "installed"
    (folder / "models/smollm2").mkdir(parents=True)
    (folder / "models/smollm2/safetensors").symlink_to(model)
    ids = random.Random(0).choices(range(100), k=30_000)
    (folder / "models/smollm2/corpus.json").write_text(json.dumps({"ids": ids}))
    python = folder / "venv/transformers/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return folder


@pytest.mark.skipif(fake_core.FAKED, reason="needs the compiled engine")
def test_a_whole_comparison(installed, tmp_path):
    command = [sys.executable, str(ROOT / "bench/compare.py"), "--directory", str(installed)]
    command += ["--results", str(tmp_path / "results"), "--repeats", "1", "--timeout", "300"]
    command += ["--peers", "transformers", "openvino", "--octavo", "bf16"]
    command += ["--octavo-path", ":".join(filter(None, sys.path))]
    command += ["--workloads", "W1", "W5", "start", "memory"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    [markdown] = (tmp_path / "results").glob("*.md")
    assert markdown.read_text() in ended.stdout
    results = json.loads(markdown.with_suffix(".json").read_text())
    assert results["variants"] == ["octavo:bf16", "transformers:bf16"]
    missing = installed / "models/smollm2/openvino"
    assert results["failures"] == {"openvino:bf16": f"{missing} is missing"}
    for metric in ("W1 ttft", "W1 decode", "W5", "start"):
        values = results["values"][metric]
        assert {name: len(each) for name, each in values.items()} == {
            "octavo:bf16": 1,
            "transformers:bf16": 1,
        }
        assert all(value > 0 for each in values.values() for value in each)
    assert set(results["medians"]["memory peak"]) == set(results["variants"])
    machine = results["machine"]
    assert machine["cpu"]
    assert machine["threads"] >= 1
    assert "| W1 decode, bf16 (tokens/s) |" in markdown.read_text()
