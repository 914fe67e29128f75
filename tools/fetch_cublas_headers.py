"""Fetches the headers of cuBLAS, which the CUDA back end is compiled with; prints their place.

They are taken out of the wheel nvidia-cublas on PyPI (400 MB, of which they are 1), downloaded with
pip. The library itself is not needed to build: it is opened at run time.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

VERSION = "13.1.0.3"  # >= 13, < 14: an old one, so that newer libraries have all that it declares
PLATFORM = "manylinux_2_27_x86_64"
SHA256 = "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171"
KEPT = "nvidia/cu13/include/"
MARK = ".sha256"  # in the directory: it was unpacked in full, from the wheel of this sum


def fetch_cublas_headers() -> Path:
    target = ROOT / ".deps" / f"cublas-{VERSION}"
    if _is_unpacked(target):
        return target / "include"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        wheel = _download(Path(directory))
        digest = _sha256(wheel)
        if digest != SHA256:
            raise RuntimeError(f"{wheel.name}: SHA-256 is {digest}, expected {SHA256}")
        headers = _unpack(wheel, Path(directory) / "headers")
        if target.exists():
            shutil.rmtree(target)
        os.replace(headers, target)
    return target / "include"


def _is_unpacked(target: Path) -> bool:
    mark = target / MARK
    return mark.is_file() and mark.read_text().strip() == SHA256


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


# The headers of one platform are those of all: the wheel is the same whatever this machine is.
def _download(directory: Path) -> Path:
    print(f"Downloading nvidia-cublas=={VERSION} from PyPI, for its headers", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--platform", PLATFORM]
    command += ["--dest", str(directory), f"nvidia-cublas=={VERSION}"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    (wheel,) = directory.glob("nvidia_cublas-*.whl")
    return wheel


def _unpack(wheel: Path, directory: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.startswith(KEPT) or name.endswith("/"):
                continue
            path = directory / "include" / Path(name).name  # cuBLAS' headers lie in one folder
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(name))
    if not (directory / "include" / "cublasLt.h").is_file():
        raise RuntimeError(f"{wheel.name}: {KEPT}cublasLt.h is not in it")
    (directory / MARK).write_text(SHA256 + "\n")
    return directory


if __name__ == "__main__":
    print(fetch_cublas_headers())
