"""What a model's generation_config.json says: its sampling defaults and its end tokens."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octavo.errors import ModelLoadError, ValidationError
from octavo.sampling_params import SamplingParams
from octavo.tokenizer_files import read_json

_logger = logging.getLogger("octavo")

# generation_config.json -> SamplingParams
_DEFAULTS = {
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "max_new_tokens": "max_tokens",
    "skip_special_tokens": "skip_special_tokens",
}


class GenerationConfig:
    """The sampling defaults and the end tokens of a model.

    Args:
        model_path: the model's directory or file.
        source: "auto" for the model's own generation_config.json, a directory that holds another,
            or "vllm" or "none" to take only the end tokens from the model's own.
        override: values put over the file's.
        model_config: the model's config.json, whose eos_token_id counts where there is no
            generation_config.json.
    """

    def __init__(
        self,
        model_path: str,
        source: str = "auto",
        override: Mapping[str, Any] | None = None,
        model_config: Mapping[str, Any] | None = None,
    ) -> None:
        ignored = source in ("vllm", "none")
        content = _read(model_path, "auto" if ignored else source)
        merged = {**({} if ignored else content or {}), **(override or {})}
        self.defaults: dict[str, Any] = {
            name: merged[key] for key, name in _DEFAULTS.items() if merged.get(key) is not None
        }
        ends = content if content is not None and "eos_token_id" in content else model_config
        self.eos_token_ids = _id_list((ends or {}).get("eos_token_id"))
        self._told = False

    def default_sampling_params(self) -> SamplingParams:
        """SamplingParams with the model's defaults, which are logged the first time.

        Raises ValidationError when one of them is out of range.
        """
        if self.defaults and not self._told:
            self._told = True
            _logger.info("sampling defaults from generation_config.json: %s", self.defaults)
        try:
            return SamplingParams(**self.defaults)
        except ValidationError as error:
            raise ValidationError(
                f"generation_config.json: {error}; expected another value, by "
                "override_generation_config, or generation_config='vllm', which ignores the file"
            ) from error


def _read(model_path: str, source: str) -> dict[str, Any] | None:
    base = Path(model_path if source == "auto" else source)
    directory = base.parent if base.is_file() else base
    path = directory / "generation_config.json"
    if not path.is_file():
        if source != "auto":
            raise ModelLoadError(f"generation_config: {path} does not exist; expected a file")
        return None
    return read_json(path)


def _id_list(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [i for i in values if isinstance(i, int) and not isinstance(i, bool) and i >= 0]


def parse_model_config(config_json: str) -> dict[str, Any]:
    """The model's configuration as the engine gives it, {} when it has none."""
    content = json.loads(config_json) if config_json else {}
    return content if isinstance(content, dict) else {}
