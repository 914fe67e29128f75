#!/usr/bin/env python3
"""Makes tiny random checkpoints of every supported architecture, for tests and benchmarks.

The weights are deterministic in (variant, seed) and are chosen to make a test sharp: norms that are
not ones, biases that are not zeros, attention that is not uniform, logits of the order of 1 to 10.
Needs torch and transformers, the oracles of the tests; Octavo itself needs neither.

    python tools/make_tiny_model.py llama /tmp/llama --tokenizer
    python tools/make_tiny_model.py --list
"""

from __future__ import annotations

import argparse
import inspect
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

VOCAB_SIZE = 320
EOS_TOKEN = "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class Variant:
    """A checkpoint: a configuration over its family's defaults, and the form of its files."""

    family: str
    config: dict[str, Any] = field(default_factory=dict)
    json_edits: dict[str, Any] = field(default_factory=dict)  # of config.json; None removes a key
    dtype: str = "float32"  # of the stored weights
    max_shard_size: str = "1GB"
    rename: str | None = None  # the prefix that is cut from the names, as on old hub files
    extra_tensors: str | None = (
        None  # buffers that old checkpoints carry: "inv_freq" or "attn_bias"
    )


_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": (
        "LlamaForCausalLM",
        dict(
            vocab_size=VOCAB_SIZE,
            hidden_size=64,
            intermediate_size=112,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        ),
    ),
    "opt": (
        "OPTForCausalLM",
        dict(
            vocab_size=VOCAB_SIZE,
            hidden_size=64,
            ffn_dim=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=0,
        ),
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        dict(
            vocab_size=VOCAB_SIZE,
            n_positions=256,
            n_embd=64,
            n_layer=2,
            n_head=4,
            bos_token_id=0,
            eos_token_id=0,
        ),
    ),
}
_FAMILIES["mistral"] = ("MistralForCausalLM", _FAMILIES["llama"][1])


def _rope(rope_type: str, theta: float = 10000.0, **fields: Any) -> dict[str, Any]:
    return dict(rope_type=rope_type, rope_theta=theta, **fields)


def _llama(**config: Any) -> Variant:
    return Variant("llama", config)


def _llama_rope(rope_type: str, **fields: Any) -> Variant:
    """The form of transformers 5: rope_parameters."""
    return _llama(rope_parameters=_rope(rope_type, **fields))


def _llama_old_rope(
    scaling: dict[str, Any] | None, theta: float | None = 10000.0, **config: Any
) -> Variant:
    """The form of transformers 4: rope_theta beside rope_scaling."""
    edits = dict(rope_parameters=None, rope_theta=theta, rope_scaling=scaling)
    return Variant("llama", config, json_edits=edits)


_LLAMA3 = dict(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
)
_YARN = dict(factor=4.0, original_max_position_embeddings=64)

# The standard deviation of a projection's output, for inputs of one. Above 1.5 in q and k attention
# is nearly one-hot and float32 itself is off by more than 1e-5.
_GAINS = {"q_proj": 1.2, "k_proj": 1.2, "c_attn": 1.2, "v_proj": 1.1, "o_proj": 1.1}
_GAINS |= {"gate_proj": 1.1, "up_proj": 1.1, "down_proj": 1.1}

VARIANTS: dict[str, Variant] = {
    "llama": _llama(),
    "llama-mha": _llama(num_key_value_heads=4, rms_norm_eps=1e-5),
    "llama-gqa-8-1": _llama(hidden_size=128, num_attention_heads=8, num_key_value_heads=1),
    "llama-tied": _llama(tie_word_embeddings=True),
    "llama-attention-bias": _llama(attention_bias=True),
    "llama-mlp-bias": _llama(mlp_bias=True),
    "llama-head-dim": _llama(head_dim=24),
    "llama-odd": _llama(
        vocab_size=333,
        hidden_size=60,
        intermediate_size=101,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=1,
    ),
    "llama-gelu": _llama(hidden_act="gelu_pytorch_tanh"),
    "llama-theta": _llama_rope("default", theta=500000.0),
    "llama-theta-old": _llama_old_rope(None, theta=1000.0),
    "llama-llama3": _llama_rope("llama3", **_LLAMA3),
    "llama-llama3-old": _llama_old_rope(dict(rope_type="llama3", **_LLAMA3), theta=500000.0),
    "llama-linear": _llama_rope("linear", factor=4.0),
    "llama-linear-old": _llama_old_rope(dict(type="linear", factor=2.5)),
    "llama-dynamic": Variant(
        "llama", dict(rope_parameters=_rope("dynamic", factor=3.0), max_position_embeddings=64)
    ),
    "llama-dynamic-old": _llama_old_rope(
        dict(type="dynamic", factor=4.0), max_position_embeddings=48
    ),
    "llama-yarn": _llama_rope("yarn", **_YARN),
    "llama-yarn-old": _llama_old_rope(dict(type="yarn", **_YARN)),
    "llama-yarn-attention-factor": _llama_rope("yarn", attention_factor=1.25, **_YARN),
    "llama-yarn-mscale": _llama_rope("yarn", mscale=1.0, mscale_all_dim=0.7, **_YARN),
    "llama-yarn-beta": _llama_rope("yarn", beta_fast=16.0, beta_slow=2.0, truncate=False, **_YARN),
    "llama-bf16": Variant("llama", dtype="bfloat16"),
    "llama-f16": Variant("llama", dict(tie_word_embeddings=True), dtype="float16"),
    "llama-sharded": Variant("llama", max_shard_size="40KB"),
    # As Llama 1 was published: the rotary buffers stored, the newer fields absent.
    "llama-first": Variant(
        "llama",
        dict(num_key_value_heads=4),
        json_edits=dict(
            num_key_value_heads=None,
            head_dim=None,
            rope_parameters=None,
            attention_bias=None,
            mlp_bias=None,
            tie_word_embeddings=None,
        ),
        extra_tensors="inv_freq",
    ),
    "mistral": Variant("mistral", dict(sliding_window=None, head_dim=20)),
    "mistral-window": Variant("mistral", dict(sliding_window=21)),
    "opt": Variant("opt"),
    "opt-350m": Variant("opt", dict(do_layer_norm_before=False, word_embed_proj_dim=40)),
    "opt-post-norm": Variant("opt", dict(do_layer_norm_before=False)),
    "opt-projections": Variant("opt", dict(word_embed_proj_dim=96)),
    "opt-no-bias": Variant("opt", dict(enable_bias=False)),
    # As Galactica: no biases, no affine norms, gelu.
    "opt-galactica": Variant(
        "opt",
        dict(enable_bias=False, layer_norm_elementwise_affine=False, activation_function="gelu"),
    ),
    "opt-untied": Variant("opt", dict(tie_word_embeddings=False)),
    "opt-no-final-norm": Variant("opt", dict(_remove_final_layer_norm=True)),
    "opt-hub-names": Variant("opt", rename="model."),
    "opt-f16": Variant("opt", dtype="float16"),
    "gpt2": Variant("gpt2"),
    "gpt2-inverse-layer": Variant("gpt2", dict(scale_attn_by_inverse_layer_idx=True, n_layer=3)),
    "gpt2-unscaled": Variant("gpt2", dict(scale_attn_weights=False)),
    "gpt2-inner": Variant("gpt2", dict(n_inner=72, activation_function="gelu")),
    "gpt2-untied": Variant("gpt2", dict(tie_word_embeddings=False, activation_function="relu")),
    "gpt2-hub-names": Variant("gpt2", rename="transformer.", extra_tensors="attn_bias"),
    "gpt2-sharded": Variant("gpt2", max_shard_size="40KB"),
    "gpt2-bf16": Variant("gpt2", dtype="bfloat16"),
}


def _weight_values(
    name: str, shape: tuple[int, ...], seed: int, sharpness: float, conv1d: bool
) -> np.ndarray:
    """Values of one parameter, which depend on its name, its shape and the arguments alone."""
    noise = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape)
    module, kind = name.split(".")[-2:]
    if len(shape) == 1:
        return 0.2 * noise if kind == "bias" else 1.0 + 0.3 * noise
    if module in ("embed_tokens", "wte", "lm_head"):
        return noise * 2.0 / np.sqrt(shape[1])
    if module in ("embed_positions", "wpe"):
        return noise * 1.2
    fan_in = shape[0] if conv1d else shape[1]
    return noise * sharpness * _GAINS.get(module, 1.6) / np.sqrt(fan_in)


def _randomize(model: Any, seed: int, sharpness: float) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shape = tuple(parameter.shape)
            values = _weight_values(name, shape, seed, sharpness, conv1d=".c_" in name)
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))


def _stored_tensors(directory: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for path in sorted(directory.glob("*.safetensors")):
        tensors.update(load_file(path))
    return tensors


def _rewrite_tensors(directory: Path, variant: Variant, config: Any) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = _stored_tensors(directory)
    if variant.rename:
        tensors = {name.removeprefix(variant.rename): value for name, value in tensors.items()}
    for layer in range(config.num_hidden_layers):
        if variant.extra_tensors == "inv_freq":
            tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
        if variant.extra_tensors == "attn_bias":
            mask = torch.ones(config.n_positions, config.n_positions).tril()[None, None]
            tensors[f"h.{layer}.attn.bias"] = mask.clone()
            tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    if variant.family == "opt" and variant.rename:
        tensors["lm_head.weight"] = tensors["decoder.embed_tokens.weight"].clone()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def _edit_json(path: Path, edits: dict[str, Any]) -> None:
    document = json.loads(path.read_text())
    for key, value in edits.items():
        if value is None:
            document.pop(key, None)
        else:
            document[key] = value
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


def _training_text() -> list[str]:
    """Prose that every Python brings along: the documentation strings of its library."""
    import argparse
    import collections
    import difflib
    import random
    import string
    import textwrap

    texts = []
    for module in (argparse, collections, difflib, random, string, textwrap):
        texts.append(inspect.getdoc(module) or "")
        for _, member in sorted(inspect.getmembers(module)):
            if inspect.isclass(member) or inspect.isfunction(member):
                texts.append(inspect.getdoc(member) or "")
    return texts


def make_tokenizer(directory: Path, vocab_size: int = VOCAB_SIZE) -> None:
    """Trains a byte-level BPE tokenizer of `vocab_size` ids, of which 0 is the end of sequence."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_text(), trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = dict(
        tokenizer_class="PreTrainedTokenizerFast",
        bos_token=EOS_TOKEN,
        eos_token=EOS_TOKEN,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def make_tiny_model(
    name: str,
    directory: str | Path,
    *,
    seed: int = 0,
    sharpness: float = 1.0,
    dtype: str | None = None,
    tokenizer: bool = False,
    overrides: dict[str, Any] | None = None,
) -> Path:
    """Writes the variant `name` into `directory` and returns it.

    `overrides` go to its configuration. `sharpness` scales the layers' matrices: at 1 the model
    multiplies rounding errors by about ten, at 0.6 by about three.
    """
    import torch
    import transformers

    variant = VARIANTS[name]
    architecture, defaults = _FAMILIES[variant.family]
    model_class = getattr(transformers, architecture)
    config = model_class.config_class(**{**defaults, **variant.config, **(overrides or {})})
    with torch.random.fork_rng():
        model = model_class(config)
    _randomize(model, seed, sharpness)
    model.to(getattr(torch, dtype or variant.dtype))

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory, max_shard_size=variant.max_shard_size)
    if variant.rename or variant.extra_tensors:
        _rewrite_tensors(directory, variant, config)
    _edit_json(directory / "config.json", variant.json_edits)
    if tokenizer:
        make_tokenizer(directory, config.vocab_size)
    return directory


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("variant", nargs="?", choices=sorted(VARIANTS), metavar="VARIANT")
    parser.add_argument("directory", nargs="?", metavar="OUT_DIR")
    parser.add_argument("--list", action="store_true", help="print the variants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--tokenizer", action="store_true", help="train and write a tokenizer too")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(VARIANTS))
        return
    if arguments.variant is None or arguments.directory is None:
        parser.error("VARIANT and OUT_DIR are needed")
    print(
        make_tiny_model(
            arguments.variant,
            arguments.directory,
            seed=arguments.seed,
            dtype=arguments.dtype,
            tokenizer=arguments.tokenizer,
        )
    )


if __name__ == "__main__":
    main()
