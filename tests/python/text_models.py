"""Small tokenizers, trained on the spot, and the directories that hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps in the sun.",
    "Hello, my name is Ada. I live in London; the year is 1843!",
    "def f(x):\n    return x * 2  # twice\n\n\tprint(f(21))",
    "Größe, café, naïve, Ελλάδα, Москва, 東京, 한국어, עברית, العربية",
    "emoji 😀 👍🏽 👨‍👩‍👧‍👦 🇩🇪, math ∑∫√, quotes “ ” ‘ ’, dashes – —",
] * 4

TEXTS = [
    "",
    " ",
    "Hello, world",
    "  two spaces, then\n\n\nnewlines\t and tabs  ",
    "The year 1843 and 12,345.67",
    "東京 and Москва and 😀👍🏽👨‍👩‍👧‍👦",
    "don't can't I'LL we've",
    "e\u0301 is not \u00e9",
    "<s> and </s> and <|im_start|>user\nHi<|im_end|>",
    "\u0000\u0001\ufffd\u200b\u2028",
    "x" * 300,
]


def byte_level(vocab_size: int = 400, specials: tuple[str, ...] = ()) -> Tokenizer:
    """A byte-level BPE tokenizer, as GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def sentencepiece_like(vocab_size: int = 500) -> Tokenizer:
    """BPE over marked spaces with byte fallback, as Llama 2's."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 256,
        special_tokens=["<unk>", "<s>", "</s>"],
        limit_alphabet=80,
        show_progress=False,
    )
    trained.train_from_iterator(CORPUS, trainer)
    learned = json.loads(trained.to_str())["model"]
    vocab: dict[str, int] = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    for token in sorted(learned["vocab"], key=learned["vocab"].get):
        vocab.setdefault(token, len(vocab))
    merges = [tuple(merge) for merge in learned["merges"]]
    model = models.BPE(
        vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def save(
    tokenizer: Tokenizer,
    directory: Path,
    config: dict[str, Any] | None = None,
    model_type: str | None = None,
    **files: Any,
) -> Path:
    """A directory with tokenizer.json and the side files."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **(config or {})}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    if model_type is not None:
        (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return directory
