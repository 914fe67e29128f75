"""Matrices that are multiplied as integers, and caches of them, against the same engine in float32
on the decoded weights: logits by cosine, on tiny models of every encoding and on the real SmolLM2.

The real model has positions where a small change turns the next token, so its logits are compared
over running text as one vector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import gguf
import numpy as np
import pytest
from engine_driver import generate, greedy, make_engine, random_prompt
from gguf_files import Matrix, Type, encoder_of, write_llama_gguf
from octavo import LLM
from octavo.errors import ValidationError
from test_gguf_models import K_QUANTS, NARROW, WIDE, k_quant_encoder

LEAST_COSINE = 0.999
ENCODINGS = [Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1]


def cosines(got: Matrix, expected: Matrix) -> Matrix:
    """Of each row of two matrices."""
    norms = np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)
    return np.asarray((got * expected).sum(1) / norms)


def check(path: Path, vocab: int, **options: Any) -> Any:
    """An engine with these options is close to the exact one. Returns it."""
    exact = make_engine(path)
    engine = make_engine(path, **options)
    assert exact.model_info.quantization == "none"
    for length in (1, 2, 5, 50):
        prompt = random_prompt(length, vocab, seed=length)
        got = cosines(engine.compute_logits(prompt), exact.compute_logits(prompt))
        assert got.min() >= LEAST_COSINE, f"{length} tokens: {got.min():.5f}"
    return engine


@pytest.mark.parametrize("kind", ENCODINGS + K_QUANTS, ids=lambda kind: kind.name)
def test_every_encoding(kind: Any, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    k_quant = kind in K_QUANTS
    directory = tiny_model("llama", overrides=WIDE if k_quant else NARROW, sharpness=0.6)
    encode = k_quant_encoder(lambda name: kind) if k_quant else encoder_of(kind)
    write_llama_gguf(directory, tmp_path / "m.gguf", encode)
    engine = check(tmp_path / "m.gguf", 320, quantization="gguf")
    info = engine.model_info
    assert (info.quantization, info.dtype) == ("gguf", "float32")
    assert info.weight_bytes < 0.5 * make_engine(tmp_path / "m.gguf").model_info.weight_bytes
    prompts = [random_prompt(n, 320, seed=n) for n in (3, 30, 7)]
    together = generate(engine, prompts, [greedy(8)] * 3)
    assert together == [generate(engine, [p], greedy(8))[0] for p in prompts]


@pytest.fixture(scope="module")
def texts(smollm2: Path) -> list[list[int]]:
    """Six passages of Python's documentation, 128 tokens each at the most."""
    with LLM(str(smollm2), max_model_len=64) as llm:
        tokenizer = llm.get_tokenizer()
        names = sorted(topics)[:: len(topics) // 6][:6]
        return [list(tokenizer.encode(" ".join(topics[name].split())))[:128] for name in names]


def check_real(path: Path, texts: list[list[int]], **options: Any) -> Any:
    """An engine of the real model with these options is close to the exact one. Returns it."""
    exact, engine = make_engine(path), make_engine(path, **options)
    expected = np.concatenate([exact.compute_logits(ids).ravel() for ids in texts])
    got = np.concatenate([engine.compute_logits(ids).ravel() for ids in texts])
    cosine = cosines(got[None].astype(np.float64), expected[None].astype(np.float64))[0]
    assert cosine >= LEAST_COSINE, f"{cosine:.5f}"
    return engine


@pytest.mark.parametrize("kind", ENCODINGS, ids=lambda kind: kind.name)
def test_the_real_model(kind: Any, smollm2: Path, texts: list[list[int]], tmp_path: Path) -> None:
    """SmolLM2 with the layers' matrices of this encoding, from the float values of its file."""
    path = tmp_path / "m.gguf"
    reencode(smollm2, path, kind)
    engine = check_real(path, texts, quantization="gguf")
    assert engine.model_info.quantization == "gguf"


def test_the_real_model_as_it_is(smollm2: Path, texts: list[list[int]]) -> None:
    info = check_real(smollm2, texts, dtype="auto").model_info
    assert (info.quantization, info.dtype) == ("gguf", "float16")
    assert info.kv_cache_dtype == "bfloat16"


def test_int8_on_load(
    tiny_model: Callable[..., Path], smollm2: Path, texts: list[list[int]], tmp_path: Path
) -> None:
    engine = check(tiny_model("llama", overrides=NARROW, sharpness=0.6), 320, quantization="int8")
    assert engine.model_info.quantization == "int8"
    reencode(smollm2, tmp_path / "m.gguf", Type.F16)
    check_real(tmp_path / "m.gguf", texts, quantization="int8")


def test_a_cache_of_int8(
    tiny_model: Callable[..., Path], smollm2: Path, texts: list[list[int]]
) -> None:
    directory = tiny_model("llama", overrides=NARROW, sharpness=0.6)
    engine = check(directory, 320, kv_cache_dtype="int8")
    assert engine.model_info.kv_cache_dtype == "int8"
    assert engine.model_info.kv_cache_bytes < 0.4 * make_engine(directory).model_info.kv_cache_bytes
    check_real(smollm2, texts, kv_cache_dtype="int8")


def test_gguf_of_floats_is_refused(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    write_llama_gguf(tiny_model("llama", overrides=NARROW), tmp_path / "m.gguf")
    with pytest.raises(ValidationError, match=r"quantization: 'gguf'.*expected a GGUF file"):
        make_engine(tmp_path / "m.gguf", quantization="gguf")


def reencode(source: Path, target: Path, kind: Any) -> None:
    """A copy of a GGUF file with its matrices in `kind`."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        sub_type = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        if values.ndim == 1:
            writer.add_tensor(tensor.name, values.astype(np.float32))
        else:  # the embedding, which is the head too, keeps the most bits, as llama.cpp has it
            of = Type.Q8_0 if tensor.name == "token_embd.weight" else kind
            writer.add_tensor(tensor.name, gguf.quantize(values, of), raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
