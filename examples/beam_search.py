"""Searches the five most probable continuations of a prompt: vLLM's example, in its first form and
in today's, with another import and model.

Usage: python examples/beam_search.py [MODEL]
"""

import sys

from octavo import LLM
from octavo.sampling_params import BeamSearchParams

llm = LLM(model=sys.argv[1] if len(sys.argv) > 1 else "HuggingFaceTB/SmolLM2-135M-Instruct")
params = BeamSearchParams(beam_width=5, max_tokens=50)
outputs = llm.generate("Hello, my name is", params)

for output in outputs:
    prompt = output.prompt
    generated_text = output.outputs[0].text
    print(f"Prompt: {prompt!r}, Generated text: {generated_text!r}")

outputs = llm.beam_search([{"prompt": "Hello, my name is "}], params)

for output in outputs:
    generated_text = output.sequences[0].text
    print(f"Generated text: {generated_text!r}")
