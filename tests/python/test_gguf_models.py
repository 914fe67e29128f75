"""GGUF files of every weight type against transformers on weights that the `gguf` package reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from device_under_test import DEVICE
from engine_driver import generate, greedy, make_engine, random_prompt
from gguf_files import (
    Encoder,
    Matrix,
    Type,
    checkpoint_tensors,
    encoder_of,
    write_gpt2_gguf,
    write_llama_gguf,
)
from oracle import Oracle, count_equal_tokens, llama_from_gguf, max_difference

SIMPLE = [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1]
K_QUANTS = [Type.Q4_K, Type.Q5_K, Type.Q6_K]
TOLERANCE = {"ref": 1e-4, DEVICE: 1e-3}
# Rows of whole blocks: of 32 elements, and of 256 for the K types.
NARROW = {"intermediate_size": 128}
WIDE = {"hidden_size": 256, "intermediate_size": 512}
GPT2_WIDE = {"n_embd": 256}

Writer = Callable[[Path, Path, Encoder], dict[str, Matrix]]


def random_blocks(kind: Any, rows: int, columns: int, std: float, seed: int) -> Matrix:
    """Random K-quant blocks, every bit of them in use, whose values have about this deviation."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (rows * columns // elements, size), dtype=np.uint8)

    def set_scales(scale: float) -> None:
        jitter = rng.uniform(0.5, 1.5, (len(blocks), 1)) * scale
        if kind == Type.Q6_K:  # the scale is the last half float
            blocks[:, -2:] = jitter.astype(np.float16).view(np.uint8)
            return
        middle = 7.5 if kind == Type.Q4_K else 15.5  # of the quants: the minimum centres them
        blocks[:, 0:2] = jitter.astype(np.float16).view(np.uint8)
        blocks[:, 2:4] = (jitter * middle).astype(np.float16).view(np.uint8)

    set_scales(0.01)
    set_scales(0.01 * std / float(gguf.dequantize(blocks, kind).std()))
    return blocks.reshape(rows, columns // elements * size)


def k_quant_encoder(kinds: Callable[[str], Any]) -> Encoder:
    """Matrices of random blocks of the type that `kinds` names; None: float32 as given."""

    def encode(name: str, values: Matrix) -> tuple[Matrix, Any]:
        kind = kinds(name)
        if values.ndim == 1 or kind is None:
            return values, Type.F32
        if kind not in K_QUANTS:
            return gguf.quantize(values, kind), kind
        seed = sum(name.encode())
        return random_blocks(kind, *values.shape, float(values.std()), seed), kind

    return encode


def oracle_on(directory: Path, tensors: dict[str, Matrix]) -> Oracle:
    """The checkpoint's oracle with other weights."""
    oracle = Oracle(directory)
    state = {name: torch.from_numpy(values) for name, values in tensors.items()}
    missing, unexpected = oracle.model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    oracle.model.tie_weights()
    return oracle


def check(path: Path, oracle: Oracle, devices: tuple[str, ...] = ("ref", DEVICE)) -> None:
    for device in devices:
        engine = make_engine(path, device=device)
        for length in (1, 17, 50):
            prompt = random_prompt(length, oracle.vocab_size, seed=length)
            difference = max_difference(engine.compute_logits(prompt), oracle.logits(prompt))
            assert difference <= TOLERANCE[device], f"{device}, {length} tokens: {difference:.3g}"
        expected = oracle.greedy(prompt, 16)
        count_equal_tokens(generate(engine, [prompt], greedy(16))[0], expected, device)


def check_written(
    write: Writer, directory: Path, path: Path, encode: Encoder, **options: Any
) -> None:
    decoded = write(directory, path, encode)
    check(path, oracle_on(directory, checkpoint_tensors(decoded, directory)), **options)


@pytest.mark.parametrize("kind", SIMPLE, ids=lambda kind: kind.name)
def test_llama(kind: Any, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny_model("llama", overrides=NARROW)
    check_written(write_llama_gguf, directory, tmp_path / "m.gguf", encoder_of(kind))


@pytest.mark.parametrize("kind", SIMPLE, ids=lambda kind: kind.name)
def test_gpt2(kind: Any, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    check_written(write_gpt2_gguf, tiny_model("gpt2"), tmp_path / "m.gguf", encoder_of(kind))


@pytest.mark.parametrize("kind", K_QUANTS, ids=lambda kind: kind.name)
def test_llama_k_quants(kind: Any, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny_model("llama", overrides=WIDE, sharpness=0.6)
    encode = k_quant_encoder(lambda name: kind)
    check_written(write_llama_gguf, directory, tmp_path / "m.gguf", encode)


@pytest.mark.parametrize("kind", K_QUANTS, ids=lambda kind: kind.name)
def test_gpt2_k_quants(kind: Any, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny_model("gpt2", overrides=GPT2_WIDE, sharpness=0.6)
    # The positions stay float32, as llama.cpp keeps them; a tied head is written once.
    encode = k_quant_encoder(
        lambda name: (
            None if name.startswith("position") else Type.Q6_K if "output." in name else kind
        )
    )
    path = tmp_path / "m.gguf"
    decoded = write_gpt2_gguf(directory, path, encode)
    oracle = oracle_on(directory, checkpoint_tensors(decoded, directory))
    # Its head is another encoding of the embedding.
    head = torch.from_numpy(decoded["output.weight"])
    oracle.model.lm_head.weight = torch.nn.Parameter(head)
    check(path, oracle)


def test_a_mixture_as_in_q4_k_m(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """Types differ within a fused qkv and between layers."""
    directory = tiny_model("llama", overrides=WIDE, sharpness=0.6)

    def kinds(name: str) -> Any:
        if name in ("token_embd.weight", "output.weight"):
            return Type.Q6_K
        if "attn_v" in name:
            return Type.Q6_K if "blk.0" in name else Type.Q8_0
        if "ffn_gate" in name:
            return Type.Q5_0
        return Type.Q5_K if "ffn_down" in name else Type.Q4_K

    check_written(write_llama_gguf, directory, tmp_path / "m.gguf", k_quant_encoder(kinds))


@pytest.mark.parametrize(
    "variant",
    [
        "llama-mha",
        "llama-gqa-8-1",
        "llama-attention-bias",
        "llama-mlp-bias",
        "llama-tied",
        "llama-odd",
        "llama-theta",
    ],
)
def test_llama_variants(variant: str, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """The permutation of q and k, their biases, and tied heads."""
    check_written(write_llama_gguf, tiny_model(variant), tmp_path / "m.gguf", encoder_of(Type.F32))


def test_gpt2_inner(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny_model("gpt2", overrides={"n_inner": 96})
    check_written(write_gpt2_gguf, directory, tmp_path / "m.gguf", encoder_of(Type.Q8_0))


def test_head_dim_of_its_own(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny_model("llama-head-dim")
    decoded = write_llama_gguf(directory, tmp_path / "m.gguf", key_length=24)
    check(tmp_path / "m.gguf", oracle_on(directory, checkpoint_tensors(decoded, directory)))


def test_llama3_scaling_by_rope_freqs(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """llama.cpp writes llama3 scaling as a tensor of divisors of the frequencies."""
    directory = tiny_model("llama-llama3")
    oracle = Oracle(directory)
    rotary = oracle.model.model.rotary_emb
    plain, _ = rotary.compute_default_rope_parameters(oracle.model.config)
    divisors = (plain / rotary.inv_freq).numpy()
    assert divisors.max() > 2
    write_llama_gguf(directory, tmp_path / "m.gguf", extra={"rope_freqs.weight": divisors})
    check(tmp_path / "m.gguf", oracle)


@pytest.mark.parametrize("variant", ["llama-linear", "llama-yarn", "llama-yarn-beta"])
def test_rope_scaling_in_the_metadata(
    variant: str, tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    if variant == "llama-yarn-beta":
        options = {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "rope_theta": 10000.0,
        }
        directory = tiny_model("llama", overrides={"rope_parameters": options})
    else:
        directory = tiny_model(variant)
    write_llama_gguf(directory, tmp_path / "m.gguf")
    check(tmp_path / "m.gguf", Oracle(directory))


def test_the_two_oracles_agree(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """llama_from_gguf, which SmolLM2 is tested with, and the checkpoint that the file came from."""
    directory = tiny_model("llama", overrides=NARROW)
    write_llama_gguf(directory, tmp_path / "m.gguf")
    prompt = random_prompt(20, 320, seed=1)
    logits = llama_from_gguf(tmp_path / "m.gguf")(torch.tensor([prompt])).logits[0]
    np.testing.assert_allclose(logits.detach().numpy(), Oracle(directory).logits(prompt), atol=1e-6)


@pytest.mark.parametrize("kind", [Type.Q8_0, Type.Q4_1], ids=lambda kind: kind.name)
def test_half_precision_engines_load_quantised_files(
    kind: Any, tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    directory = tiny_model("llama", overrides=NARROW, sharpness=0.6)
    write_llama_gguf(directory, tmp_path / "m.gguf", encoder_of(kind))
    prompt = random_prompt(40, 320, seed=2)
    exact = make_engine(tmp_path / "m.gguf").compute_logits(prompt)
    for dtype, expected in (("bfloat16", 0.9995), ("float16", 0.9999)):
        got = make_engine(tmp_path / "m.gguf", dtype=dtype).compute_logits(prompt)
        cosines = (got * exact).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(exact, axis=1)
        assert cosines.min() >= expected
    assert make_engine(tmp_path / "m.gguf", dtype="auto").model_info.dtype == "float16"
