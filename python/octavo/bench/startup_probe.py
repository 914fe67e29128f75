"""The process that ``octavo bench startup`` times: loads a model and generates one token.

Usage: python -m octavo.bench.startup_probe, with JSON on standard input: the model, the options of
LLM and the length of the prompt. Prints the moments, of the clock that all processes share, or an
error.
"""

from __future__ import annotations

import json
import sys
import time


def main(text: str) -> int:
    from octavo import LLM, OctavoError, SamplingParams

    moments = {"imported": time.monotonic()}
    task = json.loads(text)
    try:
        with LLM(task["model"], **task["options"]) as llm:
            moments["ready"] = time.monotonic()
            prompt = [i % 100 for i in range(task["input_len"])]
            params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
            llm.generate([prompt], params, use_tqdm=False)
            moments["first_token"] = time.monotonic()
    except (OctavoError, OSError, TypeError, ValueError, MemoryError) as error:
        print(json.dumps({"error": " ".join(str(error).split()) or type(error).__name__}))
        return 1
    print(json.dumps(moments))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin.read()))
