"""What beam search costs: a search's time, and its steps beside those of as many plain sequences.

Usage: python bench/beam_search.py MODEL [--widths 4 8 16] [--tokens 50] [--rounds 7]

The searches and the plain sequences run in turns, of prompts of the same length and with the same
number of tokens; a ratio is the median over the rounds. Steps are timed by the engine, from the
first token to the last, so that no prompt is in them.
"""

import argparse
import random
import statistics
import sys
import time

from octavo import LLM, BeamSearchParams, SamplingParams

Prompt = list[int]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--widths", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--prompt-len", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--limit", type=float, default=1.2, help="of the ratio")
    arguments = parser.parse_args()
    with LLM(
        arguments.model,
        dtype=arguments.dtype,
        skip_tokenizer_init=True,
        max_model_len=arguments.prompt_len + arguments.tokens,
        enable_prefix_caching=False,
    ) as llm:
        print_search_time(llm, arguments)
        return print_step_ratios(llm, arguments)


def prompts_of(llm: LLM, count: int, length: int, seed: int) -> list[Prompt]:
    draw = random.Random(seed)
    ids = range(llm.model_info.vocab_size // 2)
    return [draw.choices(ids, k=length) for _ in range(count)]


def print_search_time(llm: LLM, arguments: argparse.Namespace) -> None:
    """One search of five beams, from the call to its result."""
    params = BeamSearchParams(beam_width=5, max_tokens=arguments.tokens, ignore_eos=True)
    seconds = []
    for i in range(arguments.rounds + 1):
        (prompt,) = prompts_of(llm, 1, arguments.prompt_len, seed=i)
        start = time.perf_counter()
        llm.beam_search([prompt], params)
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[1:])  # the first one warms up
    print(
        f"{arguments.prompt_len} tokens in, 5 beams, {arguments.tokens} tokens out: "
        f"{median * 1e3:.0f} ms, {median * 1e3 / arguments.tokens:.2f} ms a token"
    )


def print_step_ratios(llm: LLM, arguments: argparse.Namespace) -> int:
    print(f"{'width':>5}{'search':>14}{'plain':>14}{'ratio':>8}   of the rounds")
    worst = 0.0
    for width in arguments.widths:
        rounds = []
        for i in range(arguments.rounds):
            ways = [search_step, plain_step] if i % 2 == 0 else [plain_step, search_step]
            rounds.append({way: way(llm, width, arguments, seed=i) for way in ways})
        ratios = [times[search_step] / times[plain_step] for times in rounds]
        ratio = statistics.median(ratios)
        search = statistics.median(times[search_step] for times in rounds)
        plain = statistics.median(times[plain_step] for times in rounds)
        shown = " ".join(f"{each:.3f}" for each in sorted(ratios))
        print(f"{width:>5}{search:>11.2f} ms{plain:>11.2f} ms{ratio:>8.3f}   {shown}")
        worst = max(worst, ratio)
    print(f"The greatest ratio is {worst:.3f} (at most {arguments.limit:g})")
    return 0 if worst <= arguments.limit else 1


def search_step(llm: LLM, width: int, arguments: argparse.Namespace, seed: int) -> float:
    params = BeamSearchParams(width, arguments.tokens, ignore_eos=True, logprobs=False)
    prompts = prompts_of(llm, 1, arguments.prompt_len, seed)
    return milliseconds_per_step(llm, prompts, params, width * arguments.tokens)


def plain_step(llm: LLM, width: int, arguments: argparse.Namespace, seed: int) -> float:
    params = SamplingParams(temperature=0, max_tokens=arguments.tokens, ignore_eos=True)
    prompts = prompts_of(llm, width, arguments.prompt_len, seed)
    return milliseconds_per_step(llm, prompts, params, width * arguments.tokens)


def milliseconds_per_step(
    llm: LLM, prompts: list[Prompt], params: SamplingParams | BeamSearchParams, expected: int
) -> float:
    outputs = llm.generate(prompts, params, use_tqdm=False)
    generated = sum(len(sample.token_ids) for output in outputs for sample in output.outputs)
    if generated != expected:
        raise RuntimeError(f"expected {expected} tokens, got {generated}")
    first = max(output.metrics.first_token_ts for output in outputs)
    last = max(output.metrics.last_token_ts for output in outputs)
    return (last - first) * 1e3 / max(params.max_tokens - 1, 1)


if __name__ == "__main__":
    sys.exit(main())
