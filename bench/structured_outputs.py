"""What a JSON schema's mask adds to the time of a token, in a batch.

Usage: python bench/structured_outputs.py MODEL [--batch 16] [--tokens 64] [--rounds 7]

The same batch runs with a mask and without one in turns; the ratio is the median over the rounds.
The structure has no end within the tokens, so that both runs are of the same number of them.
"""

import argparse
import statistics
import sys
import time

from octavo import LLM, SamplingParams

RECORD = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
        "note": {"anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}]},
    },
    "required": ["name", "age", "tags", "note"],
    "additionalProperties": False,
}
SCHEMA = {"type": "array", "items": RECORD, "minItems": 16}
PROMPT = "Write a long list of people, as JSON records with name, age, tags and note.\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=float, default=1.1, help="of the ratio")
    arguments = parser.parse_args()

    llm = LLM(
        arguments.model,
        max_model_len=arguments.tokens + 64,
        max_num_seqs=arguments.batch,
        enable_prefix_caching=False,
    )
    structures = {"plain": None, "masked": {"json": SCHEMA}}
    for structure in structures.values():  # compiles the grammar, and warms up
        milliseconds_per_token(llm, structure, arguments.batch, tokens=4)
    rounds = []
    for i in range(arguments.rounds):
        order = list(structures) if i % 2 == 0 else list(structures)[::-1]
        times = {
            kind: milliseconds_per_token(llm, structures[kind], arguments.batch, arguments.tokens)
            for kind in order
        }
        rounds.append((times["plain"], times["masked"]))
        print(f"round {i + 1}: {times['plain']:.2f} ms plain, {times['masked']:.2f} ms masked")
    ratio = statistics.median(masked / plain for plain, masked in rounds)
    print(
        f"batch {arguments.batch}: {statistics.median(p for p, _ in rounds):.2f} ms a token, "
        f"{statistics.median(m for _, m in rounds):.2f} ms with a mask, ratio {ratio:.3f} "
        f"(at most {arguments.limit:g})"
    )
    return 0 if ratio <= arguments.limit else 1


def milliseconds_per_token(llm: LLM, structure: dict | None, batch: int, tokens: int) -> float:
    """Of one batch, from its first token to its last: without the prompts."""
    params = [
        SamplingParams(seed=i, max_tokens=tokens, ignore_eos=True, structured_outputs=structure)
        for i in range(batch)
    ]
    first = last = 0.0
    generated = 0
    for output in llm.stream([PROMPT] * batch, params):
        last = time.perf_counter()
        first = first or last
        generated += len(output.outputs[0].token_ids)
    if generated != batch * tokens:
        raise RuntimeError(f"expected {batch * tokens} tokens, got {generated}")
    return (last - first) * 1e3 / max(tokens - 1, 1)


if __name__ == "__main__":
    sys.exit(main())
