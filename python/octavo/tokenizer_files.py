"""Reads a tokenizer from a model directory or a GGUF file, as transformers' AutoTokenizer would.

``tokenizer.json`` is taken as its authors serialized it, with the special tokens that the other
files add. One class is treated as transformers does since version 5: a ``LlamaTokenizer`` puts its
prefix space before the first word only, whatever the file's normalizer says. Where a directory has
no ``tokenizer.json``, GPT-2's and OPT's ``vocab.json`` and ``merges.txt`` are read here, and all
else goes through transformers, which is imported only then.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from octavo.errors import ModelLoadError
from octavo.tokenizer import SPECIAL_TOKEN_NAMES, Tokenizer

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
_BYTE_LEVEL_CLASSES = frozenset(("GPT2Tokenizer", "OPTTokenizer"))
_BYTE_LEVEL_MODELS = frozenset(("gpt2", "opt"))


def load_path(path: str) -> Tokenizer:
    """The tokenizer of a model directory or a .gguf file. Raises ModelLoadError."""
    location = Path(path)
    if location.is_file() and location.suffix == ".gguf":
        if any((location.parent / name).is_file() for name in _TOKENIZER_FILES[:1]):
            return load_directory(location.parent)
        from octavo.gguf_tokenizer import load_gguf_tokenizer

        return load_gguf_tokenizer(str(location))
    if location.is_file() and location.name == "tokenizer.json":
        return load_directory(location.parent)
    if location.is_dir():
        return load_directory(location)
    raise ModelLoadError(f"tokenizer: {path} does not exist; expected a directory or a .gguf file")


def load_directory(directory: Path) -> Tokenizer:
    """The tokenizer of a directory. Raises ModelLoadError."""
    config = read_json(directory / "tokenizer_config.json")
    if (directory / "tokenizer.json").is_file():
        return _from_tokenizer_json(directory, config)
    gguf_files = sorted(directory.glob("*.gguf"))
    if len(gguf_files) == 1 and not any((directory / f).is_file() for f in _TOKENIZER_FILES):
        from octavo.gguf_tokenizer import load_gguf_tokenizer

        return load_gguf_tokenizer(str(gguf_files[0]))
    if _is_byte_level(directory, config):
        return _from_vocab_and_merges(directory, config)
    return _from_transformers(directory)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object's content, {} when the file is missing. Raises ModelLoadError if malformed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path}: {error}; expected a JSON object") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _from_tokenizer_json(directory: Path, config: dict[str, Any]) -> Tokenizer:
    import tokenizers

    path = directory / "tokenizer.json"
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for malformed files
        raise ModelLoadError(f"{path}: {error}; expected a tokenizers file") from error
    if _is_llama_class(directory, config, path):
        _use_llama_pipeline(backend, config)
    return _finish(backend, directory, config)


def _from_vocab_and_merges(directory: Path, config: dict[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, processors

    vocab, merges = directory / "vocab.json", directory / "merges.txt"
    try:
        backend = Backend(models.BPE.from_file(str(vocab), str(merges)))
    except Exception as error:
        raise ModelLoadError(f"{vocab}, {merges}: {error}; expected byte-level BPE") from error
    prefix_space = bool(config.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = decoders.ByteLevel()
    defaults = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    tokenizer = _finish(backend, directory, {**defaults, **config})
    bos, bos_id = tokenizer.bos_token, tokenizer.bos_token_id
    if config.get("add_bos_token") and bos is not None and bos_id is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, bos_id)]
        )
    return tokenizer


def _from_transformers(directory: Path) -> Tokenizer:
    if not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelLoadError(
            f"{directory}: no tokenizer; expected one of {', '.join(_TOKENIZER_FILES)} "
            "(or pass tokenizer=..., or skip_tokenizer_init=True)"
        )
    try:
        auto = import_module("transformers").AutoTokenizer
        slow = auto.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # anything that a model's own files may cause there
        raise ModelLoadError(
            f"{directory}: transformers could not load this tokenizer: {error}"
        ) from error
    specials = {k: str(v) for k, v in slow.special_tokens_map.items() if isinstance(v, str)}
    options: dict[str, Any] = {
        "special_tokens_map": specials,
        "extra_special_tokens": slow.all_special_tokens,
        "chat_template": slow.chat_template,
    }
    backend = getattr(slow, "backend_tokenizer", None)
    if backend is not None:
        return Tokenizer(backend, **options)
    from octavo.slow_tokenizer import SlowTokenizer

    return SlowTokenizer(slow, **options)


def _is_llama_class(directory: Path, config: dict[str, Any], path: Path) -> bool:
    """Whether transformers would rebuild this tokenizer.json as its class LlamaTokenizer."""
    model = read_json(directory / "config.json")
    name = config.get("tokenizer_class") or model.get("tokenizer_class") or ""
    if str(name).removesuffix("Fast") != "LlamaTokenizer" or "auto_map" in config:
        return False
    if model.get("model_type") not in (None, "llama"):
        return False
    return '"ByteLevel"' not in path.read_text(encoding="utf-8")


def _use_llama_pipeline(backend: Any, config: dict[str, Any]) -> None:
    from tokenizers import decoders, models, pre_tokenizers

    if not isinstance(backend.model, models.BPE):
        return
    flag = config.get("add_prefix_space")
    prefix = True if flag is None else bool(flag)
    scheme = "never" if not prefix else "always" if config.get("legacy") else "first"
    backend.model.byte_fallback = True
    backend.model.fuse_unk = True
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        steps.append(decoders.Strip(content=" ", left=1))
    backend.decoder = decoders.Sequence(steps)


def _finish(backend: Any, directory: Path, config: dict[str, Any]) -> Tokenizer:
    """Adds the tokens that the side files name and reads the chat template."""
    legacy = {} if "added_tokens_decoder" in config else _legacy_tokens(directory)
    merged = {**config, **legacy}
    named = {n: merged[n] for n in SPECIAL_TOKEN_NAMES if merged.get(n) is not None}
    listed = merged.get("extra_special_tokens") or merged.get("additional_special_tokens") or []
    extra = list(listed.values()) if isinstance(listed, dict) else list(listed)
    _add_missing_tokens(backend, config, [*named.values(), *extra])
    backend.encode_special_tokens = bool(config.get("split_special_tokens", False))
    return Tokenizer(
        backend,
        special_tokens_map={name: _content(token) for name, token in named.items()},
        extra_special_tokens=[_content(token) for token in extra],
        chat_template=_chat_template(directory, config),
    )


def _legacy_tokens(directory: Path) -> dict[str, Any]:
    return read_json(directory / "special_tokens_map.json")


def _add_missing_tokens(backend: Any, config: dict[str, Any], specials: list[Any]) -> None:
    decoder = config.get("added_tokens_decoder") or {}
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    missing = [decoder[key] for key in sorted(decoder, key=int)]
    names = {_content(token) for token in specials}
    for token in [*missing, *specials]:
        content = _content(token)
        if content in known:
            continue
        known.add(content)
        backend.add_tokens([_added_token(token, special=content in names)])


def _added_token(token: Any, *, special: bool) -> Any:
    from tokenizers import AddedToken

    if isinstance(token, str):
        return AddedToken(token, special=True)
    special = special or bool(token.get("special", False))
    options = {k: token[k] for k in ("single_word", "lstrip", "rstrip", "normalized") if k in token}
    return AddedToken(token["content"], special=special, **options)


def _content(token: Any) -> str:
    if isinstance(token, dict):
        token = token.get("content")
    if not isinstance(token, str):
        raise ModelLoadError(f"tokenizer_config.json: {token!r} is not a token; expected a string")
    return token


def _chat_template(directory: Path, config: dict[str, Any]) -> str | dict[str, str] | None:
    """Templates in files of their own come before the configuration's."""
    templates: dict[str, str] = {}
    single = directory / "chat_template.jinja"
    if single.is_file():
        templates["default"] = single.read_text(encoding="utf-8")
    for path in sorted((directory / "additional_chat_templates").glob("*.jinja")):
        templates[path.stem] = path.read_text(encoding="utf-8")
    if templates:
        return templates["default"] if list(templates) == ["default"] else templates
    legacy = read_json(directory / "chat_template.json").get("chat_template")
    value = config.get("chat_template") or legacy
    if isinstance(value, list):  # [{"name": ..., "template": ...}]
        return {item["name"]: item["template"] for item in value}
    return value if isinstance(value, (str, dict)) else None


def _is_byte_level(directory: Path, config: dict[str, Any]) -> bool:
    if not all((directory / name).is_file() for name in ("vocab.json", "merges.txt")):
        return False
    name = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    if name:
        return name in _BYTE_LEVEL_CLASSES
    return read_json(directory / "config.json").get("model_type") in _BYTE_LEVEL_MODELS
