"""LoRARequest, which names an adapter. This version of Octavo applies none: ``LLM`` refuses it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoRARequest:
    """An adapter, by name, number (at least 1) and directory."""

    lora_name: str
    lora_int_id: int
    lora_path: str = ""
    base_model_name: str | None = None
    load_inplace: bool = False
    is_3d_lora_weight: bool = False

    @property
    def adapter_id(self) -> int:
        """The number."""
        return self.lora_int_id

    @property
    def name(self) -> str:
        """The name."""
        return self.lora_name

    @property
    def path(self) -> str:
        """The directory."""
        return self.lora_path
