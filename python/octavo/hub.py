"""Finds a model: a local path as it is, or a name on the Hugging Face hub, downloaded once.

huggingface_hub is imported only for names that are no local path. HF_HUB_OFFLINE is honoured: then
only the local cache is looked at.
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path

from octavo.errors import ModelLoadError

_TEXT_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "tokenizer*")
_WEIGHTS = ("*.safetensors",)
_NEVER = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx", "*.py", "original/*")
_REPO = re.compile(r"[\w.-]+(/[\w.-]+)?")


def resolve_model(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    weights: bool = True,
    cache_dir: str | None = None,
) -> str:
    """The local path of a model: a directory with config.json, or a .gguf file.

    Args:
        model: a local directory or file; a hub name such as "org/name"; or "org/name:file.gguf"
            for one GGUF file of a repository.
        revision: a branch, tag or commit of the hub's repository.
        token: an access token for the hub.
        weights: False fetches only the configuration and the tokenizer.
        cache_dir: where downloads are kept, by default huggingface_hub's own cache.

    Raises:
        ModelLoadError: it is neither here nor on the hub; the message says what was tried.
    """
    name = os.fspath(model)
    local = Path(name).expanduser()
    if name and (local.is_file() or local.is_dir()):
        return _in_directory(local) if local.is_dir() else str(local)
    repo, _, file = name.partition(":")
    if _looks_like_path(name) or not _REPO.fullmatch(repo):
        raise ModelLoadError(
            f"model: {name!r} does not exist; expected a directory with config.json, a .gguf file, "
            "or a name on the Hugging Face hub such as org/name"
        )
    patterns = [*_TEXT_FILES, *([file] if file else _WEIGHTS if weights else ())]
    directory = _download(repo, patterns, revision=revision, token=token, cache_dir=cache_dir)
    return _chosen_file(directory, repo, file, weights=weights)


def _download(
    repo: str,
    patterns: list[str],
    *,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | None,
) -> Path:
    hub = import_module("huggingface_hub")
    try:
        path = hub.snapshot_download(
            repo,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            allow_patterns=patterns,
            ignore_patterns=list(_NEVER),
        )
    except Exception as error:  # network, authorisation and repository errors of many classes
        at = f" at revision {revision}" if revision else ""
        raise ModelLoadError(
            f"model: {repo} is not a local path ({Path(repo).absolute()} does not exist) and could "
            f"not be fetched from the Hugging Face hub{at}{_offline_note()}: "
            f"{type(error).__name__}: {_first_line(error)}"
        ) from error
    return Path(path)


def _chosen_file(directory: Path, repo: str, file: str, *, weights: bool) -> str:
    if file:
        chosen = directory / file
        if not chosen.is_file():
            raise ModelLoadError(f"model: {repo} has no file {file}")
        return str(chosen)
    if weights and not any(directory.glob("*.safetensors")):
        found = ", ".join(sorted(path.name for path in directory.iterdir())) or "nothing"
        raise ModelLoadError(
            f"model: {repo} has no *.safetensors (found {found}); expected safetensors weights, "
            "or name a GGUF file as org/name:file.gguf"
        )
    return str(directory)


def _in_directory(directory: Path) -> str:
    """A directory that holds one .gguf file and no config.json means that file."""
    files = sorted(directory.glob("*.gguf"))
    if len(files) == 1 and not (directory / "config.json").is_file():
        return str(files[0])
    return str(directory)


def _looks_like_path(name: str) -> bool:
    return (
        name.startswith(("/", ".", "~"))
        or name.count("/") > 1
        or "\\" in name
        or (name.endswith((".gguf", ".json", ".safetensors")) and ":" not in name)
    )


def _offline_note() -> str:
    flag = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return " (HF_HUB_OFFLINE is set: only the local cache was looked at)" if flag else ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"
