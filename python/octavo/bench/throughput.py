"""``octavo bench throughput``: many requests at once, and how fast all of them are done."""

from __future__ import annotations

import argparse
import time

from octavo.bench.datasets import (
    SampleRequest,
    Source,
    add_dataset_arguments,
    check_dataset_arguments,
    get_requests,
)
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
from octavo.engine_options import engine_options
from octavo.errors import NotSupportedError
from octavo.inputs import TokensPrompt
from octavo.outputs import RequestOutput
from octavo.sampling_params import SamplingParams

DESCRIPTION = "requests and tokens a second of many prompts submitted at once"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", default="vllm", help='accepted as "vllm" or "octavo"')
    add_dataset_arguments(parser)
    parser.add_argument("--n", type=int, default=1, help="samples a prompt")
    parser.add_argument("--async-engine", action="store_true", help="through AsyncLLM")
    parser.add_argument(
        "--disable-detokenize", action="store_true", help="leave the texts of the answers out"
    )
    add_common_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.backend not in ("vllm", "octavo"):
        raise NotSupportedError(f"--backend {arguments.backend}: only Octavo itself is measured")
    check_dataset_arguments(arguments)
    require_count(arguments, 1, "n")
    model_of(arguments)
    check_output_file(arguments.output_json)
    seconds, outputs = (_run_async if arguments.async_engine else _run)(arguments)
    raise_errors(outputs)
    _report(arguments, seconds, outputs)
    return 0


def _run(arguments: argparse.Namespace) -> tuple[float, list[RequestOutput]]:
    with load(arguments) as llm:
        source = Source(arguments, llm.model_info.vocab_size, llm.get_tokenizer)
        requests = get_requests(source)
        require_room(llm, _most_tokens(requests))
        prompts = [TokensPrompt(prompt_token_ids=request.prompt) for request in requests]
        params = [_params(arguments, request) for request in requests]
        start = time.perf_counter()
        outputs = llm.generate(prompts, params)
        return time.perf_counter() - start, outputs


def _run_async(arguments: argparse.Namespace) -> tuple[float, list[RequestOutput]]:
    import asyncio

    from octavo.async_llm import AsyncLLM

    async def last_output(llm: AsyncLLM, request: SampleRequest) -> RequestOutput:
        prompt = TokensPrompt(prompt_token_ids=request.prompt)
        return [o async for o in llm.generate(prompt, _params(arguments, request))][-1]

    async def run_all() -> tuple[float, list[RequestOutput]]:
        async with AsyncLLM(model_of(arguments), **engine_options(arguments)) as llm:
            source = Source(arguments, llm.model_info.vocab_size, llm.get_tokenizer)
            requests = get_requests(source)
            require_room(llm, _most_tokens(requests))
            start = time.perf_counter()
            outputs = await asyncio.gather(*(last_output(llm, r) for r in requests))
            return time.perf_counter() - start, list(outputs)

    return asyncio.run(run_all())


def _most_tokens(requests: list[SampleRequest]) -> int:
    return max(request.prompt_len + request.expected_output_len for request in requests)


def _params(arguments: argparse.Namespace, request: SampleRequest) -> SamplingParams:
    return SamplingParams(
        n=arguments.n,
        temperature=1.0,
        top_p=1.0,
        ignore_eos=True,
        max_tokens=request.expected_output_len,
        detokenize=not (arguments.disable_detokenize or arguments.skip_tokenizer_init),
    )


def _report(arguments: argparse.Namespace, seconds: float, outputs: list[RequestOutput]) -> None:
    num_prompt = sum(len(output.prompt_token_ids or ()) for output in outputs)
    num_output = sum(len(sample.token_ids) for output in outputs for sample in output.outputs)
    results = {
        "elapsed_time": seconds,
        "num_requests": len(outputs),
        "total_num_tokens": num_prompt + num_output,
        "requests_per_second": len(outputs) / seconds,
        "tokens_per_second": (num_prompt + num_output) / seconds,
    }
    print(
        f"Throughput: {results['requests_per_second']:.2f} requests/s, "
        f"{results['tokens_per_second']:.2f} total tokens/s, "
        f"{num_output / seconds:.2f} output tokens/s"
    )
    print(f"Total num prompt tokens:  {num_prompt}")
    print(f"Total num output tokens:  {num_output}")
    write_results(arguments.output_json, results)
