"""Chats with a model, then again with a chat template from a file.

Usage: python examples/chat.py MODEL [TEMPLATE]
"""

import sys
from pathlib import Path

from octavo import LLM
from octavo.entrypoints.chat_utils import load_chat_template


def main(model: str, template: str) -> None:
    llm = LLM(model=model)
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

    custom_template = load_chat_template(chat_template=template)
    print("Loaded chat template:", custom_template)
    outputs = llm.chat(conversation, chat_template=custom_template)
    print(f"Generated text: {outputs[0].outputs[0].text!r}")


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else str(here / "templates/chatml.jinja"))
