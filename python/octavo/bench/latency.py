"""``octavo bench latency``: how long one batch takes, again and again."""

from __future__ import annotations

import argparse
import random
import time

from octavo.beam_search import BeamSearchParams, RequestParams
from octavo.bench.options import (
    add_common_arguments,
    check_output_file,
    load,
    model_of,
    raise_errors,
    require_count,
    require_room,
    write_results,
)
from octavo.bench.statistics import mean, percentiles
from octavo.inputs import TokensPrompt
from octavo.llm import LLM
from octavo.progress import with_progress
from octavo.sampling_params import SamplingParams

DESCRIPTION = "time one batch of random prompts, from the call to its results"

_MOST_ID = 10000  # vLLM's prompts have ids below this one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input-len", type=int, default=32, help="tokens of a prompt")
    parser.add_argument("--output-len", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--batch-size", type=int, default=8, help="prompts in the batch")
    parser.add_argument("--n", type=int, default=1, help="samples a prompt, or beams")
    parser.add_argument("--use-beam-search", action="store_true", help="search with --n beams")
    parser.add_argument("--num-iters-warmup", type=int, default=10, help="batches before it")
    parser.add_argument("--num-iters", type=int, default=30, help="batches that are timed")
    parser.add_argument(
        "--disable-detokenize", action="store_true", help="leave the texts of the answers out"
    )
    # A cache of prefixes would skip what is to be measured.
    add_common_arguments(parser, {"enable_prefix_caching": False})


def run(arguments: argparse.Namespace) -> int:
    require_count(arguments, 1, "input_len", "output_len", "batch_size", "n", "num_iters")
    require_count(arguments, 0, "num_iters_warmup")
    model_of(arguments)
    check_output_file(arguments.output_json)
    params = _params(arguments)
    with load(arguments) as llm:
        require_room(llm, arguments.input_len + arguments.output_len)
        prompts = _prompts(llm, arguments)
        print("Warming up...")
        _time_batches(llm, prompts, params, arguments.num_iters_warmup, "Warmup iterations")
        latencies = _time_batches(llm, prompts, params, arguments.num_iters, "Bench iterations")
    shares = percentiles(latencies)
    print(f"Avg latency: {mean(latencies)} seconds")
    for percentage, value in shares.items():
        print(f"{percentage}% percentile latency: {value} seconds")
    write_results(
        arguments.output_json,
        {"avg_latency": mean(latencies), "latencies": latencies, "percentiles": shares},
    )
    return 0


def _params(arguments: argparse.Namespace) -> RequestParams:
    if arguments.use_beam_search:
        return BeamSearchParams(arguments.n, arguments.output_len, ignore_eos=True)
    return SamplingParams(
        n=arguments.n,
        temperature=1.0,
        top_p=1.0,
        ignore_eos=True,
        max_tokens=arguments.output_len,
        detokenize=not (arguments.disable_detokenize or arguments.skip_tokenizer_init),
    )


def _prompts(llm: LLM, arguments: argparse.Namespace) -> list[TokensPrompt]:
    draw = random.Random(arguments.seed)
    ids = range(min(_MOST_ID, llm.model_info.vocab_size))
    return [
        TokensPrompt(prompt_token_ids=draw.choices(ids, k=arguments.input_len))
        for _ in range(arguments.batch_size)
    ]


def _time_batches(
    llm: LLM, prompts: list[TokensPrompt], params: RequestParams, count: int, what: str
) -> list[float]:
    latencies = []
    for _ in with_progress(list(range(count)), True, what):
        start = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        latencies.append(time.perf_counter() - start)
        raise_errors(outputs)
    return latencies
