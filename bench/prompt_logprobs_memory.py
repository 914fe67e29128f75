"""What prompt_logprobs=20 adds to the peak memory of a process that scores one long prompt.

Usage: python bench/prompt_logprobs_memory.py [--tokens 32768] [--vocab 50000] [--limit-mib 64]

Each measurement is a process of its own, with a random model of one small layer.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

COUNT = 20
CASES = {"none": {}, "list": {"flat_logprobs": False}, "flat": {"flat_logprobs": True}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--vocab", type=int, default=50_000)
    parser.add_argument("--limit-mib", type=float, default=64)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.model, arguments.tokens, arguments.case)))
        return 0
    with tempfile.TemporaryDirectory() as directory:
        write_model(Path(directory), arguments.tokens, arguments.vocab)
        peaks = {case: run_case(directory, arguments, case) for case in CASES}
    added = {case: peaks[case] - peaks["none"] for case in CASES if case != "none"}
    print(
        f"{arguments.tokens} tokens, vocabulary {arguments.vocab}: {peaks['none']:.1f} MiB without"
    )
    for case, mib in added.items():
        print(f"prompt_logprobs={COUNT}, {case}: {mib:+.1f} MiB (at most {arguments.limit_mib:g})")
    return 0 if max(added.values()) <= arguments.limit_mib else 1


def write_model(directory: Path, tokens: int, vocab: int) -> None:
    """The configuration alone: the weights are random."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": tokens + 16,
        "vocab_size": vocab,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    (directory / "config.json").write_text(json.dumps(config))


def run_case(model: str, arguments: argparse.Namespace, case: str) -> float:
    """The peak of a new process, in MiB."""
    command = [sys.executable, __file__, "--case", case, "--model", model]
    command += ["--tokens", str(arguments.tokens)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"case {case}: {result.stderr}")
    measured = json.loads(result.stdout.splitlines()[-1])
    print(f"{case}: peak {measured['peak_mib']:.1f} MiB, {measured['positions']} positions")
    return float(measured["peak_mib"])


def measure(model: str, tokens: int, case: str) -> dict[str, float]:
    """Scores the prompt and looks at every entry of the result."""
    from octavo import LLM, SamplingParams

    llm = LLM(model, load_format="dummy", skip_tokenizer_init=True, max_num_seqs=1, dtype="float32")
    count = None if case == "none" else COUNT
    params = SamplingParams(
        temperature=0, max_tokens=1, prompt_logprobs=count, detokenize=False, **CASES[case]
    )
    vocab = llm.model_info.vocab_size
    prompt = {"prompt_token_ids": [(i * 7919 + 13) % vocab for i in range(tokens)]}
    (output,) = llm.generate(prompt, params, use_tqdm=False)
    entries = sum(len(entry) for entry in output.prompt_logprobs or () if entry)
    if count is not None and entries < (tokens - 1) * count:
        raise RuntimeError(f"expected {count} entries a position, got {entries} in all")
    return {"peak_mib": peak_mib(), "positions": len(output.prompt_logprobs or ())}


def peak_mib() -> float:
    """The most memory that this process has had. Not ru_maxrss, which begins at its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status: expected a line VmHWM")


if __name__ == "__main__":
    sys.exit(main())
