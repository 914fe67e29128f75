"""Offline throughput: random prompts of one length, answers of one length, all submitted at once.

Usage: python bench/throughput.py MODEL [--input-len 128] [--output-len 64] [--num-prompts 16]
"""

import argparse
import random
import time

from octavo import LLM, SamplingParams


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--load-format", default="auto", help="dummy: random weights")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--input-len", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=64)
    parser.add_argument("--num-prompts", type=int, default=16)
    arguments = parser.parse_args()

    llm = LLM(
        model=arguments.model,
        load_format=arguments.load_format,
        dtype=arguments.dtype,
        max_model_len=arguments.input_len + arguments.output_len,
        enable_prefix_caching=False,
        skip_tokenizer_init=True,
    )
    draw = random.Random(0)
    prompts = [
        {"prompt_token_ids": [draw.randrange(100) for _ in range(arguments.input_len)]}
        for _ in range(arguments.num_prompts)
    ]
    params = SamplingParams(temperature=0, max_tokens=arguments.output_len, ignore_eos=True)

    start = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - start
    generated = sum(len(output.outputs[0].token_ids) for output in outputs)
    total = generated + arguments.num_prompts * arguments.input_len
    print(
        f"Throughput: {arguments.num_prompts / seconds:.2f} requests/s, "
        f"{total / seconds:.1f} total tokens/s, "
        f"{generated / seconds:.1f} output tokens/s"
    )


if __name__ == "__main__":
    main()
