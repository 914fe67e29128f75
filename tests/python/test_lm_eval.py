"""EleutherAI's lm-eval on the real SmolLM2: Octavo under lm-eval's vllm back end, by the adapter of
examples/lm_eval, against lm-eval's hf back end. Both read one float32 checkpoint; the tasks are
those of the example, made from the help texts that come with Python."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import octavo
import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "lm_eval"
TOLERANCE = 1e-3
NUM_ITEMS = 8
NUM_CHATS = 2
METRICS = {
    "octavo_cloze": ["acc", "acc_norm"],
    "octavo_last_word": ["perplexity", "acc"],
    "octavo_prose": ["word_perplexity", "byte_perplexity", "bits_per_byte"],
    "octavo_recall": ["exact_match", "chrf"],
}
NUM_REQUESTS = {  # four endings for each item of the cloze
    name: NUM_ITEMS * (4 if name == "octavo_cloze" else 1) for name in METRICS
}
MODEL_ARGS = {"dtype": "float32", "max_length": 1024}


@pytest.fixture(scope="module")
def checkpoint(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The GGUF file as transformers writes it: lm-eval's vllm back end needs a config.json."""
    import transformers
    from oracle import llama_from_gguf

    directory = tmp_path_factory.mktemp("smollm2")
    llama_from_gguf(smollm2).save_pretrained(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    tokenizer.save_pretrained(directory)
    yield directory
    (directory / "model.safetensors").unlink()  # half a gigabyte that pytest would keep


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tasks")
    command = [EXAMPLE / "make_tasks.py", directory, "--items", str(NUM_ITEMS)]
    subprocess.run([sys.executable, *command], check=True)
    return directory


@pytest.fixture(scope="module")
def adapter() -> Iterator[Any]:
    """The adapter, imported as a program of one's own would; other tests see no vllm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        patch.setattr(sys, "meta_path", list(sys.meta_path))
        yield importlib.import_module("octavo_as_vllm")
        names = [name for name in sys.modules if name.partition(".")[0] == "vllm"]
        for name in ["octavo_as_vllm", "lm_eval.models.vllm_causallms", *names]:
            sys.modules.pop(name, None)


def evaluate(model: Any, tasks: Path, names: list[str], **options: Any) -> dict[str, Any]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    results = lm_eval.simple_evaluate(
        model=model, tasks=names, task_manager=manager, bootstrap_iters=0, **options
    )
    assert results is not None
    return results


def responses(results: dict[str, Any], name: str) -> list[Any]:
    """What the model answered to each request of a task, in order."""
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    return [response for sample in samples for [response] in sample["resps"]]


@pytest.fixture(scope="module")
def hf_model(checkpoint: Path) -> Any:
    """In float64 the softmax only: torch's float32 one is off by 1e-5 per token on the CPU, always
    to one side, which makes 1e-3 of a perplexity of 100. One thread: where the machine is busy,
    torch's threads wait for each other most of the time."""
    import torch
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(1)
    args = {"pretrained": str(checkpoint), "softmax_dtype": "float64", **MODEL_ARGS}
    return HFLM(**args, device="cpu", batch_size=NUM_ITEMS)


@pytest.fixture(scope="module")
def hf_results(hf_model: Any, tasks: Path) -> dict[str, Any]:
    return evaluate(hf_model, tasks, list(METRICS))


@pytest.fixture(scope="module")
def octavo_results(adapter: Any, checkpoint: Path, tasks: Path) -> dict[str, Any]:
    """lm-eval's results, and under "stop_reasons" what ended the engine's outputs."""
    generate, stop_reasons = octavo.LLM.generate, set()

    def generate_and_note(*args: Any, **kwargs: Any) -> list[octavo.RequestOutput]:
        outputs = generate(*args, **kwargs)
        stop_reasons.update(output.outputs[0].stop_reason for output in outputs)
        return outputs

    args = {"pretrained": str(checkpoint), **MODEL_ARGS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(octavo.LLM, "generate", generate_and_note)
        results = evaluate("vllm", tasks, list(METRICS), model_args=args, batch_size="auto")
    return {**results, "stop_reasons": stop_reasons}


@pytest.mark.parametrize("name", METRICS)
def test_scores_equal_those_of_hf(
    octavo_results: dict[str, Any], hf_results: dict[str, Any], name: str
) -> None:
    for metric in METRICS[name]:
        got, expected = (
            results["results"][name][f"{metric},none"] for results in (octavo_results, hf_results)
        )
        assert got == pytest.approx(expected, rel=0, abs=TOLERANCE), metric


@pytest.mark.parametrize("name", ["octavo_cloze", "octavo_last_word"])
def test_loglikelihoods_equal_those_of_hf(
    octavo_results: dict[str, Any], hf_results: dict[str, Any], name: str
) -> None:
    got, expected = responses(octavo_results, name), responses(hf_results, name)
    assert len(got) == len(expected) == NUM_REQUESTS[name]
    for (sum_, is_greedy), (expected_sum, expected_is_greedy) in zip(got, expected, strict=True):
        assert sum_ < 0
        assert sum_ == pytest.approx(expected_sum, rel=0, abs=TOLERANCE)
        assert is_greedy == expected_is_greedy


def test_rolling_loglikelihoods_equal_those_of_hf(
    octavo_results: dict[str, Any], hf_results: dict[str, Any]
) -> None:
    got, expected = (responses(of, "octavo_prose") for of in (octavo_results, hf_results))
    assert len(got) == NUM_ITEMS
    assert got == pytest.approx(expected, rel=0, abs=TOLERANCE)


def test_the_tasks_tell_answers_apart(octavo_results: dict[str, Any]) -> None:
    """Equal scores would mean little if they were those of a model that knows nothing."""
    assert octavo_results["results"]["octavo_cloze"]["acc,none"] > 0.25
    greedy = {is_greedy for _, is_greedy in responses(octavo_results, "octavo_last_word")}
    assert greedy == {True, False}
    assert octavo_results["results"]["octavo_recall"]["chrf,none"] > 25


def test_generations_equal_those_of_hf(
    octavo_results: dict[str, Any], hf_results: dict[str, Any]
) -> None:
    got, expected = (responses(of, "octavo_recall") for of in (octavo_results, hf_results))
    assert len(got) == NUM_ITEMS
    assert all(got)
    assert got == expected
    assert octavo_results["stop_reasons"] & {"\n", ". "}


def test_program_with_chat_template(
    checkpoint: Path, tasks: Path, tmp_path: Path, hf_model: Any
) -> None:
    """The adapter as a program, which is lm-eval's own command line."""
    args = {"pretrained": checkpoint, **MODEL_ARGS}
    command = [EXAMPLE / "octavo_as_vllm.py", "run", "--model", "vllm", "--batch_size", "auto"]
    command += ["--model_args", ",".join(f"{name}={value}" for name, value in args.items())]
    command += ["--tasks", "octavo_recall", "--include_path", tasks, "--limit", str(NUM_CHATS)]
    command += ["--apply_chat_template", "--log_samples", "--output_path", tmp_path]
    subprocess.run([sys.executable, *command], check=True)
    [file] = tmp_path.rglob("samples_octavo_recall_*.jsonl")
    samples = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(samples) == NUM_CHATS

    options = {"apply_chat_template": True, "limit": NUM_CHATS}
    expected = evaluate(hf_model, tasks, ["octavo_recall"], **options)
    got = {"samples": {"octavo_recall": samples}}
    assert responses(got, "octavo_recall") == responses(expected, "octavo_recall")
    assert "<|im_start|>user" in samples[0]["arguments"]["gen_args_0"]["arg_0"]


def test_names_of_vllm_are_those_of_octavo(adapter: Any) -> None:
    assert importlib.util.find_spec("vllm") is not None
    assert importlib.metadata.version("vllm") == adapter.VLLM_VERSION
    assert importlib.import_module("vllm") is octavo
    for name in ("sampling_params", "lora.request", "tokenizers", "renderers.hf"):
        original = importlib.import_module(f"octavo.{name}")
        assert importlib.import_module(f"vllm.{name}") is original
        assert original.__name__ == f"octavo.{name}"


@pytest.mark.parametrize("name", ["vllm.no_such_module", "vllm.no_such_package.module"])
def test_what_octavo_does_not_have_is_not_found(adapter: Any, name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        importlib.import_module(name)
