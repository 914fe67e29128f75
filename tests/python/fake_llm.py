"""An `LLM` over an engine whose replies are written down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_core
import text_models
from fake_core import FakeEngine
from octavo import LLM, RequestOutput, SamplingParams
from tokenizers import Tokenizer as Backend

EOS, EOT = 2, 3
TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}AI:{% endif %}"
)
SPECIALS = ("<unk>", "<s>", "</s>", "<|eot|>")


def small_backend() -> Backend:
    return text_models.byte_level(vocab_size=380, specials=SPECIALS)


def save_model(backend: Backend, directory: Path) -> Path:
    """The tokenizer's files: all that the front end reads of a model."""
    config = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE}
    return text_models.save(backend, directory, config, model_type="llama")


def engine_saying(backend, *texts: str, eos: bool = True, **options) -> FakeEngine:
    """Sample i says texts[i], then ends (or goes on with dots)."""
    replies = [backend.encode(text, add_special_tokens=False).ids for text in texts]
    after = EOS if eos else backend.token_to_id(".")

    def reply(prompt, sample, position):
        tokens = replies[sample % len(replies)]
        return tokens[position] if position < len(tokens) else after

    return FakeEngine(reply=reply, **options)


def maker(monkeypatch: Any, model: Path, backend: Backend) -> Callable[..., LLM]:
    """make(texts, **options of LLM) -> an LLM that says these texts, and its engine as .fake."""

    def make(*texts: str, engine: FakeEngine | None = None, **options: Any) -> LLM:
        fake = engine or engine_saying(backend, *(texts or ("Hello",)))
        fake_core.use(monkeypatch, fake)
        llm = LLM(str(model), **options)
        llm.fake = fake
        return llm

    return make


def generate(llm: LLM, prompts, params=None, **options) -> list[RequestOutput]:
    if params is None:
        params = SamplingParams(max_tokens=50)
    return llm.generate(prompts, params, use_tqdm=False, **options)
