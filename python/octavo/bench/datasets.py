"""The requests of a benchmark: random ones, or those of a file, under vLLM's names."""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.bench.options import require_count
from octavo.errors import validation_error
from octavo.tokenizer import Tokenizer

# What ShareGPT's conversations must keep to, as in vLLM.
_LEAST_LEN, _MOST_PROMPT_LEN, _MOST_LEN = 4, 1024, 2048


@dataclass(frozen=True)
class SampleRequest:
    """One request: a prompt of ids, and the tokens that are to be generated for it."""

    prompt: list[int]
    expected_output_len: int

    @property
    def prompt_len(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True)
class Source:
    """What requests are made of."""

    arguments: argparse.Namespace
    vocab_size: int
    tokenizer: Callable[[], Tokenizer]  # raises ValidationError when there is none

    @property
    def draw(self) -> random.Random:
        return random.Random(self.arguments.seed)


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset-name", choices=sorted(_DATASETS), help="default: random")
    parser.add_argument("--dataset-path", metavar="FILE", help="of sharegpt (JSON), custom (JSONL)")
    parser.add_argument("--num-prompts", type=int, default=1000)
    parser.add_argument("--input-len", type=int, help="tokens of a prompt, as --random-input-len")
    parser.add_argument("--output-len", type=int, help="tokens of an answer, in every data set")
    group = parser.add_argument_group("random")
    group.add_argument("--random-input-len", type=int, default=1024)
    group.add_argument("--random-output-len", type=int, default=128)
    group.add_argument(
        "--random-range-ratio",
        type=float,
        default=0.0,
        metavar="R",
        help="draw lengths from [len * (1 - R), len * (1 + R)], 0 <= R < 1",
    )
    group.add_argument(
        "--random-prefix-len",
        "--prefix-len",
        type=int,
        default=0,
        help="tokens in front that all prompts share, over --random-input-len",
    )
    group = parser.add_argument_group("prefix_repetition")
    group.add_argument("--prefix-repetition-prefix-len", type=int, default=256)
    group.add_argument("--prefix-repetition-suffix-len", type=int, default=256)
    group.add_argument("--prefix-repetition-num-prefixes", type=int, default=10)
    group.add_argument("--prefix-repetition-output-len", type=int, default=128)


def check_dataset_arguments(arguments: argparse.Namespace) -> None:
    """Raises ValidationError where an option is out of range or lacks another."""
    require_count(
        arguments,
        1,
        *("num_prompts", "input_len", "output_len", "random_input_len", "random_output_len"),
        *("prefix_repetition_prefix_len", "prefix_repetition_suffix_len"),
        *("prefix_repetition_num_prefixes", "prefix_repetition_output_len"),
    )
    require_count(arguments, 0, "random_prefix_len")
    ratio = arguments.random_range_ratio
    if not 0 <= ratio < 1:
        raise validation_error(f"--random-range-ratio must be at least 0 and below 1, got {ratio}")
    name, path = arguments.dataset_name, arguments.dataset_path
    if name in _OF_FILES and path is None:
        raise validation_error(f"--dataset-name {name} needs --dataset-path")
    if path is not None and name not in _OF_FILES:
        expected = " or ".join(sorted(_OF_FILES))
        raise validation_error(f"--dataset-path needs --dataset-name {expected}")


def get_requests(source: Source) -> list[SampleRequest]:
    """The requests that the command line describes. Raises ValidationError, OSError."""
    name = source.arguments.dataset_name or "random"
    requests = list(_DATASETS[name](source))
    if not requests:
        raise validation_error(f"--dataset-path: {source.arguments.dataset_path} has no prompt")
    return requests


def _random(source: Source) -> Iterator[SampleRequest]:
    """Runs of consecutive ids, each from a place of its own."""
    arguments, draw, size = source.arguments, source.draw, source.vocab_size
    prefix = draw.choices(range(size), k=arguments.random_prefix_len)
    for index in range(arguments.num_prompts):
        input_len = _length(draw, arguments.input_len or arguments.random_input_len, arguments)
        output_len = _length(draw, arguments.output_len or arguments.random_output_len, arguments)
        first = draw.randrange(size) + index
        yield SampleRequest([*prefix, *((first + i) % size for i in range(input_len))], output_len)


def _length(draw: random.Random, length: int, arguments: argparse.Namespace) -> int:
    ratio = arguments.random_range_ratio
    least, most = math.floor(length * (1 - ratio)), math.ceil(length * (1 + ratio))
    return draw.randint(max(least, 1), most)


def _prefix_repetition(source: Source) -> Iterator[SampleRequest]:
    """As many prompts over each of some prefixes, in a random order."""
    arguments, draw = source.arguments, source.draw
    ids = range(source.vocab_size)
    each = arguments.num_prompts // arguments.prefix_repetition_num_prefixes
    if each == 0:
        raise validation_error("--prefix-repetition-num-prefixes must be at most --num-prompts")
    output_len = arguments.output_len or arguments.prefix_repetition_output_len
    requests = []
    for _ in range(arguments.prefix_repetition_num_prefixes):
        prefix = draw.choices(ids, k=arguments.prefix_repetition_prefix_len)
        for _ in range(each):
            suffix = draw.choices(ids, k=arguments.prefix_repetition_suffix_len)
            requests.append(SampleRequest(prefix + suffix, output_len))
    draw.shuffle(requests)
    yield from requests


def _sharegpt(source: Source) -> Iterator[SampleRequest]:
    """The first two turns of conversations, in a random order."""
    arguments = source.arguments
    turns = [
        [str(turn["value"]) for turn in entry["conversations"][:2]]
        for entry in _read_json(arguments.dataset_path)
        if isinstance(entry, dict) and len(entry.get("conversations", ())) >= 2
    ]
    source.draw.shuffle(turns)
    encode = source.tokenizer().encode
    count = 0
    for prompt, answer in turns:
        if count == arguments.num_prompts:
            return
        ids = encode(prompt)
        output_len = arguments.output_len or len(encode(answer))
        if (
            min(len(ids), output_len) >= _LEAST_LEN
            and len(ids) <= _MOST_PROMPT_LEN
            and len(ids) + output_len <= _MOST_LEN
        ):
            count += 1
            yield SampleRequest(ids, output_len)


def _custom(source: Source) -> Iterator[SampleRequest]:
    """The field "prompt" of each line, and its "output_tokens" if it has them."""
    arguments = source.arguments
    encode = source.tokenizer().encode
    with open(arguments.dataset_path, encoding="utf-8") as file:
        for _, line in zip(range(arguments.num_prompts), file, strict=False):
            entry = _parse(arguments.dataset_path, line)
            if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
                raise validation_error(
                    f'--dataset-path: {arguments.dataset_path}: expected lines with a "prompt"'
                )
            output_len = arguments.output_len or entry.get("output_tokens") or 256
            yield SampleRequest(encode(entry["prompt"]), output_len)


def _read_json(path: str) -> list[Any]:
    entries = _parse(path, Path(path).read_text(encoding="utf-8"))
    if not isinstance(entries, list):
        raise validation_error(f"--dataset-path: {path}: expected a JSON list")
    return entries


def _parse(path: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise validation_error(f"--dataset-path: {path}: no JSON: {error}") from None


_DATASETS: dict[str, Callable[[Source], Iterator[SampleRequest]]] = {
    "random": _random,
    "prefix_repetition": _prefix_repetition,
    "sharegpt": _sharegpt,
    "custom": _custom,
}
_OF_FILES = {"sharegpt", "custom"}
