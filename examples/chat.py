"""Chats with a model, then again with a custom chat template: vLLM's example, with another import
and model.

Usage: python examples/chat.py [MODEL [TEMPLATE]]
"""

import sys
from pathlib import Path

from octavo import LLM
from octavo.entrypoints.chat_utils import load_chat_template

path_to_template = Path(__file__).resolve().parent / "templates" / "chatml.jinja"
if len(sys.argv) > 2:
    path_to_template = Path(sys.argv[2])

llm = LLM(model=sys.argv[1] if len(sys.argv) > 1 else "HuggingFaceTB/SmolLM2-135M-Instruct")
conversation = [
    {"role": "system", "content": "You are a helpful assistant"},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello! How can I assist you today?"},
    {"role": "user", "content": "Write an essay about the importance of higher education."},
]
outputs = llm.chat(conversation)

for output in outputs:
    prompt = output.prompt
    generated_text = output.outputs[0].text
    print(f"Prompt: {prompt!r}, Generated text: {generated_text!r}")

# You can find a list of existing chat templates under `examples/`
custom_template = load_chat_template(chat_template=path_to_template)
print("Loaded chat template:", custom_template)

outputs = llm.chat(conversation, chat_template=custom_template)

for output in outputs:
    prompt = output.prompt
    generated_text = output.outputs[0].text
    print(f"Prompt: {prompt!r}, Generated text: {generated_text!r}")
