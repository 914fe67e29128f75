"""Writes GGUF files of tiny checkpoints with the `gguf` package, as llama.cpp's converter would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from oracle import rows_to_interleaved

Type = gguf.GGMLQuantizationType
Matrix = np.ndarray

_LLAMA = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_GPT2 = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_OUTSIDE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
}


def _gguf_name(name: str, inside: dict[str, str]) -> str:
    module, suffix = name.rsplit(".", 1)
    if module in _OUTSIDE:
        return f"{_OUTSIDE[module]}.{suffix}"
    layer, rest = module.split(".", 3)[2:]
    return f"blk.{layer}.{inside[rest]}.{suffix}"


def read_checkpoint(directory: Path) -> tuple[dict[str, Any], dict[str, Matrix]]:
    """The configuration and the float32 tensors of a checkpoint in one file."""
    from safetensors.numpy import load_file

    return json.loads((directory / "config.json").read_text()), load_file(
        directory / "model.safetensors"
    )


# How the matrix of a GGUF name is encoded: the bytes of its blocks, or the values themselves.
Encoder = Callable[[str, Matrix], tuple[Matrix, Any]]


def encoder_of(kind: Any) -> Encoder:
    """All matrices in `kind`, by the package's own quantizers; vectors in float32."""

    def encode(name: str, values: Matrix) -> tuple[Matrix, Any]:
        if values.ndim == 1 or kind == Type.F32:
            return values, Type.F32
        return gguf.quantize(values, kind), kind

    return encode


def add_tensors(writer: Any, tensors: dict[str, Matrix], encode: Encoder) -> dict[str, Matrix]:
    """Adds every tensor and returns the values that their encodings stand for, by GGUF name."""
    decoded = {}
    for name, values in tensors.items():
        data, kind = encode(name, np.ascontiguousarray(values, dtype=np.float32))
        if kind == Type.F16:
            data = data.astype(np.float16)
        writer.add_tensor(name, data, raw_dtype=kind)
        decoded[name] = gguf.dequantize(data, kind).astype(np.float32).reshape(values.shape)
    return decoded


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_rope(writer: Any, rope: dict[str, Any]) -> None:
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] not in ("linear", "yarn"):
        return  # llama3 is the tensor rope_freqs
    writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
    writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if "beta_fast" in rope:
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])


def write_llama_gguf(
    directory: Path,
    path: Path,
    encode: Encoder | None = None,
    extra: dict[str, Matrix] | None = None,
    key_length: int | None = None,
) -> dict[str, Matrix]:
    """Writes the Llama checkpoint in `directory`; returns the decoded tensors by GGUF name."""
    config, stored = read_checkpoint(directory)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    tensors = dict(extra or {})
    for name, values in stored.items():
        if "q_proj" in name or "k_proj" in name:
            values = rows_to_interleaved(values, heads if "q_proj" in name else kv_heads)
        tensors[_gguf_name(name, _LLAMA)] = values
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    _add_rope(writer, config["rope_parameters"])
    if key_length is not None:
        writer.add_key_length(key_length)
        writer.add_value_length(key_length)
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    decoded = add_tensors(writer, tensors, encode or encoder_of(Type.F32))
    _finish(writer)
    return decoded


def write_gpt2_gguf(
    directory: Path, path: Path, encode: Encoder | None = None
) -> dict[str, Matrix]:
    """Writes the GPT-2 checkpoint in `directory`; returns the decoded tensors by GGUF name."""
    config, stored = read_checkpoint(directory)
    tensors = {}
    for name, values in stored.items():
        if ".c_" in name and name.endswith(".weight"):
            values = values.T  # Conv1D stores [in, out]
        tensors[_gguf_name(name, _GPT2)] = values
    # llama.cpp's converter writes a tied head twice.
    tensors.setdefault("output.weight", tensors["token_embd.weight"])
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_feed_forward_length(config["n_inner"] or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_vocab_size(config["vocab_size"])
    decoded = add_tensors(writer, tensors, encode or encoder_of(Type.F32))
    _finish(writer)
    return decoded


def checkpoint_tensors(
    decoded: dict[str, Matrix], directory: Path, inside: dict[str, str] | None = None
) -> dict[str, Matrix]:
    """Decoded tensors back under their Hugging Face names and in its layouts."""
    from oracle import rows_from_interleaved

    config, stored = read_checkpoint(directory)
    llama = config["model_type"] == "llama"
    result = {}
    for name in stored:
        values = decoded[_gguf_name(name, inside or (_LLAMA if llama else _GPT2))]
        if "q_proj" in name:
            values = rows_from_interleaved(values, config["num_attention_heads"])
        elif "k_proj" in name:
            values = rows_from_interleaved(values, config["num_key_value_heads"])
        elif ".c_" in name and name.endswith(".weight"):
            values = values.T
        result[name] = np.ascontiguousarray(values)
    return result
