"""Files that are missing, truncated, malformed or lying: an exception that names what is wrong,
never a crash (R21, S3)."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_under_test import DEVICE
from engine_driver import Collector, greedy, make_engine
from octavo import LLM
from octavo.errors import ModelLoadError, NotSupportedError, OctavoError, ValidationError


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("llama", tokenizer=True)


def copy_of(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


def read_tensors(path: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return {name: value.copy() for name, value in load_file(path / "model.safetensors").items()}


def write_tensors(path: Path, tensors: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def edit_config(path: Path, **fields: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    config.update(fields)
    (path / "config.json").write_text(json.dumps(config))


def assert_refused(path: Path, kind: type[Exception], *expected: str, **options: Any) -> None:
    """Both the engine and the LLM raise `kind`, and the text names what is wrong."""
    for make in (
        lambda: make_engine(path, **options),
        lambda: LLM(str(path), device=DEVICE, skip_tokenizer_init=True, **options),
    ):
        with pytest.raises(kind) as caught:
            make()
        assert isinstance(caught.value, (OctavoError, OSError))
        for text in expected:
            assert text in str(caught.value)


def test_missing_paths(tmp_path: Path) -> None:
    missing = tmp_path / "not-there"
    assert_refused(missing, ModelLoadError, "not-there")
    assert_refused(tmp_path / "not-there.gguf", ModelLoadError, "not-there.gguf")
    assert_refused(tmp_path, ModelLoadError, str(tmp_path))  # an empty directory


def test_a_directory_without_config(model: Path, tmp_path: Path) -> None:
    path = copy_of(model, tmp_path)
    (path / "config.json").unlink()
    assert_refused(path, ModelLoadError, "config.json")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"text"', "{'a': 1}", '{"a": 1} x', "\xff\x00"]
)
def test_malformed_config(model: Path, tmp_path: Path, text: str) -> None:
    path = copy_of(model, tmp_path)
    (path / "config.json").write_text(text, encoding="latin-1")
    assert_refused(path, ModelLoadError, "config.json")


def test_deeply_nested_config(model: Path, tmp_path: Path) -> None:
    path = copy_of(model, tmp_path)
    (path / "config.json").write_text('{"a":' + "[" * 200_000 + "]" * 200_000 + "}")
    assert_refused(path, ModelLoadError, "config.json")


@pytest.mark.parametrize("architectures", [["BertModel"], [], "LlamaForCausalLM", [3], None])
def test_unknown_architecture(model: Path, tmp_path: Path, architectures: Any) -> None:
    path = copy_of(model, tmp_path)
    edit_config(path, architectures=architectures, model_type="bert")
    with pytest.raises((NotSupportedError, ModelLoadError), match="architecture"):
        make_engine(path)


def test_unknown_architecture_names_what_is_known(model: Path, tmp_path: Path) -> None:
    path = copy_of(model, tmp_path)
    edit_config(path, architectures=["BertModel"])
    assert_refused(path, NotSupportedError, "BertModel", "LlamaForCausalLM", "OPTForCausalLM")


@pytest.mark.parametrize(
    "field",
    [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
    ],
)
@pytest.mark.parametrize("value", [0, -1, -64, 1.5, "64", 2**31, 2**63, 1e300, [], {}, True])
def test_config_that_lies_about_sizes(model: Path, tmp_path: Path, field: str, value: Any) -> None:
    path = copy_of(model, tmp_path)
    edit_config(path, **{field: value})
    with pytest.raises((ModelLoadError, ValidationError)) as caught:
        make_engine(path)
    assert field in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", 2**30),
        ("vocab_size", 2**31 - 1),
        ("intermediate_size", 2**30),
        ("head_dim", 2**30),
        ("vocab_size", 321),
        ("intermediate_size", 96),
        ("hidden_size", 128),
    ],
)
def test_config_of_another_shape_names_the_tensor(
    model: Path, tmp_path: Path, field: str, value: int
) -> None:
    path = copy_of(model, tmp_path)
    edit_config(path, **{field: value})
    with pytest.raises(ModelLoadError, match=r"model\.|lm_head"):
        make_engine(path)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 3), (3, 2), (2**31 - 1, 1), (1, 4)])
def test_config_of_heads_that_do_not_divide(
    model: Path, tmp_path: Path, heads: int, kv_heads: int
) -> None:
    path = copy_of(model, tmp_path)
    edit_config(path, num_attention_heads=heads, num_key_value_heads=kv_heads)
    with pytest.raises(ModelLoadError):
        make_engine(path)


def test_a_layer_too_many_and_too_few(model: Path, tmp_path: Path) -> None:
    path = copy_of(model, tmp_path)
    edit_config(path, num_hidden_layers=3)
    assert_refused(path, ModelLoadError, "model.layers.2.")
    edit_config(path, num_hidden_layers=1)
    assert_refused(path, ModelLoadError, "model.layers.1.")
    edit_config(path, num_hidden_layers=2**31 - 1)
    assert_refused(path, ModelLoadError, "model.layers.2.")


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "spiral"},
        {"rope_type": "longrope", "factor": 2.0},
        {"rope_type": "linear"},
        {"rope_type": "linear", "factor": 0},
        {"rope_type": "linear", "factor": "two"},
        {"rope_type": "llama3", "factor": 8.0},
        {"rope_type": "default", "rope_theta": -1},
    ],
    ids=str,
)
def test_rope_that_is_unknown_or_malformed(model: Path, tmp_path: Path, rope: Any) -> None:
    path = copy_of(model, tmp_path)
    edit_config(path, rope_parameters=rope)
    with pytest.raises((NotSupportedError, ModelLoadError), match="rope"):
        make_engine(path)


@pytest.mark.parametrize(("field", "value"), [("hidden_act", "mish"), ("rms_norm_eps", -1.0)])
def test_other_fields_of_the_config(model: Path, tmp_path: Path, field: str, value: Any) -> None:
    path = copy_of(model, tmp_path)
    edit_config(path, **{field: value})
    with pytest.raises((NotSupportedError, ModelLoadError), match=field):
        make_engine(path)


@pytest.mark.parametrize("keep", [0, 4, 7, 8, 9, 100, 2000, -1])
def test_truncated_safetensors(model: Path, tmp_path: Path, keep: int) -> None:
    path = copy_of(model, tmp_path)
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[:keep])
    assert_refused(path, ModelLoadError, "model.safetensors")


def split_safetensors(path: Path) -> tuple[dict[str, Any], bytes]:
    data = (path / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join_safetensors(path: Path, header: dict[str, Any], body: bytes) -> None:
    text = json.dumps(header).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)


VICTIM = "model.layers.0.mlp.down_proj.weight"


@pytest.mark.parametrize(
    "entry",
    [
        {"data_offsets": [0, 2**40]},
        {"data_offsets": [2**63, 2**63 + 28672]},
        {"data_offsets": [100, 0]},
        {"data_offsets": [-4, 28668]},
        {"data_offsets": [0]},
        {"data_offsets": "all"},
        {"data_offsets": [0.5, 2.5]},
        {"shape": [64, 113]},
        {"shape": [2**33, 2**33]},
        {"shape": [-64, -112]},
        {"shape": "64x112"},
        {"dtype": "F64"},
        {"dtype": "I8"},
        {"dtype": "nonsense"},
        {"dtype": 7},
    ],
    ids=str,
)
def test_a_safetensors_entry_that_lies(model: Path, tmp_path: Path, entry: dict[str, Any]) -> None:
    path = copy_of(model, tmp_path)
    header, body = split_safetensors(path)
    header[VICTIM] = {**header[VICTIM], **entry}
    join_safetensors(path, header, body)
    assert_refused(path, ModelLoadError, VICTIM)


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 2**40, 10**9])
def test_a_safetensors_header_length_that_lies(model: Path, tmp_path: Path, size: int) -> None:
    path = copy_of(model, tmp_path)
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", size) + data[8:])
    assert_refused(path, ModelLoadError, "model.safetensors")


@pytest.mark.parametrize("header", [b"[]", b"{", b"\xff\xfe", b'{"a": 5}', b'{"a": {}}'])
def test_a_safetensors_header_of_another_kind(model: Path, tmp_path: Path, header: bytes) -> None:
    path = copy_of(model, tmp_path)
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert_refused(path, ModelLoadError, "model.safetensors")


def test_missing_left_over_and_misshapen_tensors(model: Path, tmp_path: Path) -> None:
    path = copy_of(model, tmp_path)
    tensors = read_tensors(path)
    without = {name: value for name, value in tensors.items() if name != VICTIM}
    write_tensors(path, without)
    assert_refused(path, ModelLoadError, VICTIM, "missing")

    write_tensors(path, {**tensors, "model.layers.0.mlp.extra.weight": np.zeros(3, np.float32)})
    assert_refused(path, ModelLoadError, "model.layers.0.mlp.extra.weight")

    write_tensors(path, {**tensors, VICTIM: np.ascontiguousarray(tensors[VICTIM].T)})
    assert_refused(path, ModelLoadError, VICTIM, "64", "112")

    write_tensors(path, {**tensors, VICTIM: tensors[VICTIM].astype(np.int32)})
    assert_refused(path, ModelLoadError, VICTIM)


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "lm_head.weight", "model.embed_tokens.weight"]
)
def test_each_missing_tensor_is_named(model: Path, tmp_path: Path, name: str) -> None:
    path = copy_of(model, tmp_path)
    tensors = read_tensors(path)
    del tensors[name]
    write_tensors(path, tensors)
    assert_refused(path, ModelLoadError, name)


def test_no_weights(model: Path, tmp_path: Path) -> None:
    path = copy_of(model, tmp_path)
    (path / "model.safetensors").unlink()
    assert_refused(path, ModelLoadError, "model.safetensors")


def test_shards(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    path = copy_of(tiny_model("llama-sharded"), tmp_path)
    index_path = path / "model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    name, shard = next(iter(index["weight_map"].items()))

    for other in ("not-there.safetensors", "../model.safetensors", "/etc/passwd", 5):
        changed = {**index, "weight_map": {**index["weight_map"], name: other}}
        index_path.write_text(json.dumps(changed))
        assert_refused(path, ModelLoadError, "index.json", name)
    for text in ("{", "{}", '{"weight_map": 3}'):
        index_path.write_text(text)
        assert_refused(path, ModelLoadError, "index.json")
    index_path.write_text(json.dumps(index))
    (path / shard).unlink()
    assert_refused(path, ModelLoadError, shard)


# GGUF.


@pytest.fixture(scope="module")
def gguf_bytes(tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from gguf_files import write_llama_gguf

    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_llama_gguf(tiny_model("llama"), path)
    return path.read_bytes()


def refuse_gguf(tmp_path: Path, data: bytes, *expected: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    assert_refused(path, ModelLoadError, *expected)


def test_the_unharmed_gguf_loads(tmp_path: Path, gguf_bytes: bytes) -> None:
    (tmp_path / "model.gguf").write_bytes(gguf_bytes)
    assert make_engine(tmp_path / "model.gguf").model_info.architecture == "LlamaForCausalLM"


@pytest.mark.parametrize("keep", [0, 3, 4, 8, 16, 23, 24, 100, 500, 1000, 3000, 0.5, -1])
def test_truncated_gguf(tmp_path: Path, gguf_bytes: bytes, keep: float) -> None:
    cut = int(len(gguf_bytes) * keep) if isinstance(keep, float) else keep
    refuse_gguf(tmp_path, gguf_bytes[:cut], "model.gguf")


def test_gguf_header_that_lies(tmp_path: Path, gguf_bytes: bytes) -> None:
    refuse_gguf(tmp_path, b"GGML" + gguf_bytes[4:], "model.gguf")
    for version in (1, 4, 99):
        changed = gguf_bytes[:4] + struct.pack("<I", version) + gguf_bytes[8:]
        refuse_gguf(tmp_path, changed, "version")
    big_endian = gguf_bytes[:4] + struct.pack(">I", 3) + gguf_bytes[8:]
    refuse_gguf(tmp_path, big_endian, "endian")
    for count in (2**31, 2**62, 2**64 - 1):  # of tensors, then of metadata
        refuse_gguf(tmp_path, gguf_bytes[:8] + struct.pack("<Q", count) + gguf_bytes[16:])
        refuse_gguf(tmp_path, gguf_bytes[:16] + struct.pack("<Q", count) + gguf_bytes[24:])


def patch_tensor(data: bytes, name: str, after_name: int, value: bytes) -> bytes:
    """Overwrites a field of an entry: name, u32 dimensions, u64 extents, u32 type, u64 offset."""
    key = struct.pack("<Q", len(name)) + name.encode()
    assert data.count(key) == 1
    at = data.index(key) + len(key) + after_name
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize("offset", [2**63, 2**64 - 32, 2**40, 2**64 - 1, 1])
def test_gguf_offsets_that_lie(tmp_path: Path, gguf_bytes: bytes, offset: int) -> None:
    name = "blk.0.ffn_down.weight"
    value = struct.pack("<Q", offset)
    refuse_gguf(tmp_path, patch_tensor(gguf_bytes, name, 4 + 16 + 4, value), name)


def test_gguf_shapes_and_types_that_lie(tmp_path: Path, gguf_bytes: bytes) -> None:
    name = "blk.0.ffn_down.weight"
    for extent in (0, 2**63, 2**64 - 1, 2**33, 113):
        refuse_gguf(tmp_path, patch_tensor(gguf_bytes, name, 4, struct.pack("<Q", extent)))
    for dimensions in (0, 5, 2**32 - 1):
        refuse_gguf(tmp_path, patch_tensor(gguf_bytes, name, 0, struct.pack("<I", dimensions)))
    for kind in (4, 99, 2**32 - 1):
        changed = patch_tensor(gguf_bytes, name, 20, struct.pack("<I", kind))
        refuse_gguf(tmp_path, changed, "layers.0.mlp.down_proj")


def test_gguf_with_every_byte_of_its_head_changed(tmp_path: Path, gguf_bytes: bytes) -> None:
    """Nothing crashes, whatever it means: an error of the family, or a model that answers."""
    path = tmp_path / "model.gguf"
    for at in range(600):
        data = bytearray(gguf_bytes)
        data[at] ^= 0x81
        path.write_bytes(bytes(data))
        try:
            engine = make_engine(path, num_kv_blocks=2)
        except OctavoError:
            continue
        assert engine.compute_logits([1, 2]).shape[0] == 2


def test_nan_in_the_weights_ends_the_request_with_an_error(model: Path, tmp_path: Path) -> None:
    """R20: never a stream of one token, and the message says what happened."""
    path = copy_of(model, tmp_path)
    tensors = read_tensors(path)
    tensors["model.norm.weight"][:] = np.nan
    write_tensors(path, tensors)
    engine = make_engine(path)
    collector = Collector(engine)
    request = engine.add_request([1, 2, 3], greedy(8))
    collector.run()
    assert collector.reasons[(request, 0)] == "error"
    assert "NaN" in collector.errors[(request, 0)]
    assert collector.tokens[(request, 0)] == []
