"""Fetches the source of xgrammar, which makes the masks of structured output; prints its place.

It is the source distribution on PyPI, downloaded with pip and unpacked; only its C++ files are used
(see third_party/xgrammar.cmake), nothing of it is imported. pip asks a source distribution for its
metadata, so this Python needs the build requirements of that package: scikit-build-core and
setuptools-scm.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

NAME = "xgrammar-0.2.8"
SHA256 = "8305646fd2b319d6c3003f51a1665e54cbbe9cba1fb636bc41d0b46434ccbb80"
# What is kept: the C++ core, the headers that it needs, and the licences.
KEPT = (
    "cpp/",
    "include/",
    "3rdparty/picojson/",
    "3rdparty/dlpack/include/",
    "3rdparty/dlpack/LICENSE",
    "LICENSE",
    "NOTICE",
)
MARK = ".sha256"  # in the directory: it was unpacked in full, from the archive of this sum


def fetch_xgrammar() -> Path:
    target = ROOT / ".deps" / NAME
    if _is_unpacked(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        archive = _download(Path(directory))
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != SHA256:
            raise RuntimeError(f"{archive.name}: SHA-256 is {digest}, expected {SHA256}")
        source = _unpack(archive, Path(directory))
        if target.exists():
            shutil.rmtree(target)
        os.replace(source, target)
    return target


def _is_unpacked(target: Path) -> bool:
    mark = target / MARK
    return mark.is_file() and mark.read_text().strip() == SHA256


def _download(directory: Path) -> Path:
    requirement = NAME.replace("-", "==")
    print(f"Downloading {requirement} from PyPI (3 MB)", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", "xgrammar", "--no-build-isolation"]
    command += ["--dest", str(directory), requirement]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return directory / f"{NAME}.tar.gz"


def _unpack(archive: Path, directory: Path) -> Path:
    kept = tuple(f"{NAME}/{name}" for name in KEPT)
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.isfile() or not member.name.startswith(kept):
                continue
            if ".." in Path(member.name).parts:
                raise RuntimeError(f"{archive.name}: {member.name!r} leads out of the archive")
            content = tar.extractfile(member)
            assert content is not None  # it is a file
            path = directory / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
    (directory / NAME / MARK).write_text(SHA256 + "\n")
    return directory / NAME


if __name__ == "__main__":
    print(fetch_xgrammar())
