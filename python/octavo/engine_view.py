"""What programs written for vLLM look at behind an LLM: ``llm_engine`` and ``model_config``."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from octavo.inference_core import InferenceCore
from octavo.tokenizer import Tokenizer


@dataclass(frozen=True)
class ModelConfig:
    """What the loaded model is, under vLLM's names. ``hf_config`` has the entries of config.json as
    attributes."""

    model: str
    tokenizer: str
    dtype: str
    max_model_len: int
    seed: int | None
    hf_config: Any = field(repr=False)
    trust_remote_code: bool = False
    quantization: str | None = None
    runner_type: str = "generate"
    is_encoder_decoder: bool = False
    is_multimodal_model: bool = False
    vocab_size: int = 0
    hidden_size: int = 0

    @property
    def hf_text_config(self) -> Any:
        """As ``hf_config``."""
        return self.hf_config

    def get_vocab_size(self) -> int:
        """The number of rows of the output matrix."""
        return self.vocab_size

    def get_hidden_size(self) -> int:
        """The size of a hidden state."""
        return self.hidden_size


class EngineView:
    """A look at the engine. ``LLM`` does the work."""

    def __init__(self, core: InferenceCore) -> None:
        self._core = core
        self.model_config = model_config_of(core)

    def get_model_config(self) -> ModelConfig:
        """As ``model_config``."""
        return self.model_config

    def get_tokenizer(self) -> Tokenizer:
        """As ``LLM.get_tokenizer``."""
        return self._core.need_tokenizer("get_tokenizer")

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer, None with ``skip_tokenizer_init``."""
        return self._core.tokenizer

    def get_num_unfinished_requests(self) -> int:
        """The number of requests in flight."""
        return self._core.thread().num_unfinished()

    def has_unfinished_requests(self) -> bool:
        """Whether a request is in flight."""
        return self.get_num_unfinished_requests() > 0

    def abort_request(self, request_ids: list[str]) -> None:
        """As ``LLM.abort``."""
        self._core.abort(request_ids)


def model_config_of(core: InferenceCore) -> ModelConfig:
    """The model's configuration under vLLM's names."""
    info, args = core.model_info, core.args
    return ModelConfig(
        model=str(args.model),
        tokenizer=os.fspath(args.tokenizer if args.tokenizer is not None else args.model),
        dtype=info.dtype,
        quantization=None if info.quantization == "none" else info.quantization,
        max_model_len=info.max_model_len,
        seed=args.seed,
        hf_config=_namespace(core.model_config),
        vocab_size=info.vocab_size,
        hidden_size=info.hidden_size,
    )


def _namespace(value: Any) -> Any:
    """The top level as attributes, what is inside as it is: rope_scaling is a dict in both."""
    return SimpleNamespace(**{key: value[key] for key in value if key.isidentifier()})
