"""ModelInfo: what the loaded model is, as a plain value that outlives the engine."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ModelInfo:
    """What an ``LLM`` has loaded; see ``octavo/engine.h`` for each field."""

    architecture: str
    dtype: str  # of the weights in memory that are not quantized
    quantization: str  # gguf, int8, or none
    kv_cache_dtype: str
    device: str  # cpu, cuda or ref
    isa: str  # the instruction set that the kernels use: avx512, sm_90
    num_threads: int
    vocab_size: int
    hidden_size: int
    num_layers: int
    max_model_len: int  # tokens, prompt and output
    num_parameters: int
    weight_bytes: int
    kv_cache_bytes: int
    workspace_bytes: int
    num_kv_blocks: int
    block_size: int  # tokens
    eos_token_id: int | None
    config_json: str  # in Hugging Face's form

    @classmethod
    def of(cls, info: Any) -> ModelInfo:
        """A copy of the engine's own, which would keep the engine alive."""
        return cls(**{field.name: getattr(info, field.name) for field in fields(cls)})
