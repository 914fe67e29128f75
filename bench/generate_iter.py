"""Many tiny requests through generate_iter: is the speed constant, and the memory flat?

Usage: python bench/generate_iter.py [--num-requests 100000] [--in-order]

The model has random weights and two layers of 64; a request is a prompt of a few ids and two tokens
of output, so that what is measured is what each request costs besides the model.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from octavo import LLM, SamplingParams

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "vocab_size": 512,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def prompts(count: int) -> Iterator[list[int]]:
    draw = random.Random(0)
    for _ in range(count):
        yield [draw.randrange(CONFIG["vocab_size"]) for _ in range(draw.randrange(3, 9))]


@dataclass
class Mark:
    """What the clocks say when some part of the requests is done."""

    seconds: float
    cpu_seconds: float  # of all threads
    memory_mib: float

    @classmethod
    def now(cls) -> Mark:
        return cls(time.perf_counter(), time.process_time(), resident_mib())


def run(llm: LLM, arguments: argparse.Namespace) -> None:
    count = arguments.num_requests
    parts = {round(count * part): part for part in (0.1, 0.5, 0.9, 1.0)}
    marks = {0.0: Mark.now()}
    params = SamplingParams(temperature=0, max_tokens=arguments.output_len, ignore_eos=True)
    outputs = llm.generate_iter(prompts(count), params, in_order=arguments.in_order)
    for done, _ in enumerate(outputs, 1):
        if done in parts:
            marks[parts[done]] = Mark.now()

    def first_and_last(clock: str) -> tuple[float, float]:
        at = {part: getattr(mark, clock) for part, mark in marks.items()}
        return at[0.1] - at[0.0], at[1.0] - at[0.9]

    first, last = first_and_last("seconds")
    cpu_first, cpu_last = first_and_last("cpu_seconds")
    tenth = count / 10
    print(
        f"Speed: {tenth / first:.0f} requests/s in the first 10%, {tenth / last:.0f} in the last "
        f"10%, ratio {first / last:.3f}"
    )
    print(
        f"CPU time: {cpu_first / tenth * 1e6:.0f} us a request in the first 10%, "
        f"{cpu_last / tenth * 1e6:.0f} in the last 10%, ratio {cpu_first / cpu_last:.3f}"
    )
    memory = {part: mark.memory_mib for part, mark in marks.items()}
    shown = ", ".join(f"{memory[part]:.1f} MiB at {part:.0%}" for part in (0.1, 0.5, 1.0))
    print(f"Memory: {shown}; growth after 10%: {memory[1.0] - memory[0.1]:+.1f} MiB")
    seconds = marks[1.0].seconds - marks[0.0].seconds
    print(f"Overhead: {seconds / count * 1e6:.0f} us a request, {llm.stats()['num_steps']} steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-requests", type=int, default=100_000)
    parser.add_argument("--output-len", type=int, default=2)
    parser.add_argument("--max-num-seqs", type=int, default=64)
    parser.add_argument("--in-order", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "config.json").write_text(json.dumps(CONFIG))
        with LLM(
            directory,
            load_format="dummy",
            skip_tokenizer_init=True,
            max_num_seqs=arguments.max_num_seqs,
            num_gpu_blocks_override=1024,
        ) as llm:
            run(llm, arguments)


if __name__ == "__main__":
    main()
